"""The report as a page: one document, unique ids, landmarks, labels, captions; html-validate and axe find nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser

import pytest

from lgdrl.plots import figure_of
from lgdrl.profiler.config import ProfileConfig
from lgdrl.profiler.pictures import SvgPage
from lgdrl.profiler.profile import profile
from lgdrl.profiler.report import html, write_report
from lgdrl.profiler.tables import markdown
from sim.config import resolve

VOID = {"meta", "link", "br", "hr", "img", "input"}
TOOLS = {"html-validate": "9.7.1", "axe-core": "4.14.1", "jsdom": "24.1.3"}
AXE = """
import { readFileSync } from "fs"; import { JSDOM } from "jsdom"; import axe from "axe-core";
const dom = new JSDOM(readFileSync(process.argv[2], "utf8"), { runScripts: "outside-only", pretendToBeVisual: true });
dom.window.eval(axe.source);
const rules = { "color-contrast": { enabled: false } };  // needs a layout
const found = await dom.window.axe.run(dom.window.document, { rules });
console.log(JSON.stringify(found.violations.map(each => [each.id, each.nodes.length, each.help])));
"""


class Silent:
    """Follows nothing."""

    def stage(self, text, total, deadline_s=None):
        pass

    def answered(self, row):
        pass

    def advanced(self, text=""):
        pass


@pytest.fixture(scope="module")
def measured():
    settings = {
        "experts": {"rule": {"expert": "rule"}, "a<b&c": {"expert": "idle"}},
        "scenarios": ["lane-change", "highway-fast-v0"],
        "loads": [{"kind": "closed", "cars": 1}],
        "decisions": 12,
        "repeats": 1,
        "quality": {"scenes": 0},
        "safety": {"episodes": 1, "latencies": [0.0, 0.5], "policies": ["hold-last"]},
        "training": {"decisions": 0},
    }
    return profile(resolve(ProfileConfig(), settings), Silent(), lambda found: None)


class Page(HTMLParser):
    """Elements in order, with their attributes and what they stand in."""

    def __init__(self, text):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], tuple[str, ...]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}, tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}, tuple(self.open)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def all(self, tag):
        return [(attributes, above) for name, attributes, above in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(measured):
    return html(measured)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_elements_are_closed_where_they_were_opened(page):
    assert page.wrong == []
    assert page.open == []


def test_ids_are_unique_in_the_page_and_references_lead_to_them(page):
    ids = Counter(attributes["id"] for _, attributes, _ in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    assert len(page.all("svg")) >= 6
    targets = [attributes["href"][1:] for attributes, _ in page.all("use")]
    targets += [
        attributes["clip-path"][len("url(#") : -1] for _, attributes, _ in page.elements if "clip-path" in attributes
    ]
    assert targets
    assert set(targets) <= set(ids)


def test_everything_that_is_read_stands_in_one_main_landmark(page):
    assert len(page.all("main")) == 1
    for tag in ("h1", "h2", "table", "svg", "dl", "pre"):
        assert page.all(tag)
        assert all("main" in above for _, above in page.all(tag)), tag
    (language, _), *_ = page.all("html")
    assert language["lang"] == "en"


def test_pictures_have_labels_that_differ(page):
    labels = [attributes["aria-label"] for attributes, _ in page.all("svg")]
    assert all(attributes["role"] == "img" for attributes, _ in page.all("svg"))
    assert len(set(labels)) == len(labels)
    assert any("a<b&c" in label for label in labels)


def test_what_scrolls_can_be_reached_and_is_named(page):
    regions = [attributes for attributes, _ in page.all("section")]
    assert all(attributes["tabindex"] == "0" for attributes in regions)
    names = [attributes["aria-label"] for attributes in regions]
    assert len(set(names)) == len(names)
    for tag in ("table", "pre"):
        assert all(above[-1] == "section" for _, above in page.all(tag))


def test_tables_have_captions_and_headers_have_scopes(page):
    assert len(page.all("caption")) == len(page.all("table"))
    assert {attributes.get("scope") for attributes, above in page.all("th") if "thead" in above} == {"col"}
    assert {attributes.get("scope") for attributes, above in page.all("th") if "tbody" in above} == {"row"}
    rows = sum("tbody" in above for _, above in page.all("tr"))
    assert sum("tbody" in above for _, above in page.all("th")) == rows


def test_styles_of_pictures_do_not_reach_the_page(page):
    assert [above for _, above in page.all("style")] == [("html", "head")]


def test_the_report_says_what_load_the_machine_had(measured, text):
    said = measured.machine.words()
    assert "core" in said
    assert "of torch" in said
    assert said in markdown(measured)
    assert said.split(";")[0] in text
    assert set(measured.to_dict()["machine"]) >= {"cores", "torch_threads", "load_average_begin"}


def test_a_picture_twice_in_a_page_shares_no_id():
    figure, axes = figure_of(3, 2)
    axes.plot([1, 2], label="x")
    axes.legend()
    both = SvgPage()
    first, second = Page(both.inline(figure, "one")), Page(both.inline(figure, 'two "and" more'))
    ids = [{attributes["id"] for _, attributes, _ in each.elements if "id" in attributes} for each in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert second.all("svg")[0][0]["aria-label"] == 'two "and" more'


@pytest.mark.slow
def test_html_validate_and_axe_find_nothing(measured, tmp_path):
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm and node are not installed")
    wanted = [f"{name}@{version}" for name, version in TOOLS.items()]
    install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path), *wanted]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install {', '.join(wanted)}: {done.stderr.strip().splitlines()[-1:]}")
    write_report(measured, tmp_path)
    (tmp_path / "axe.mjs").write_text(AXE)
    command = [str(tmp_path / "node_modules/.bin/html-validate"), "--formatter=json", "report.html"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    found = [message for each in json.loads(checked.stdout or "[]") for message in each["messages"]]
    assert [(message["ruleId"], message["line"]) for message in found] == []
    assert checked.returncode == 0, checked.stderr
    axe = subprocess.run(["node", "axe.mjs", "report.html"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert axe.returncode == 0, axe.stderr
    assert json.loads(axe.stdout) == []
