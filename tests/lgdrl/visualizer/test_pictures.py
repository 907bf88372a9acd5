"""The window, films and live training on environments that have no traffic scenes."""

from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pygame
import pytest

import sim
from experts import registry
from experts.data.demonstrations import demonstrations_of
from experts.data.episodes import from_bytes, load_episodes, to_bytes
from experts.human import Hands, Wish, components_of
from experts.provider import Decision
from lgdrl.cli import main
from lgdrl.config import RunConfig
from lgdrl.training import resume, start
from lgdrl.visualizer.app import App, WindowOptions, open_window
from lgdrl.visualizer.bars import ActionBars, AuthorityBar, Proposals
from lgdrl.visualizer.clock import RealClock, VirtualClock
from lgdrl.visualizer.command import play_session
from lgdrl.visualizer.controls import keymap
from lgdrl.visualizer.film import FilmStyle, window_frames
from lgdrl.visualizer.painter import Painter
from lgdrl.visualizer.scripted import ScriptedPerson, post_key
from lgdrl.visualizer.session import DriveSession, ReplaySession
from lgdrl.visualizer.track import Assessment, separation, summands
from lgdrl.visualizer.training import TrainSession
from sim.errors import UsageError
from sim.picture import Picture, pack_pixels
from sim.render import LIGHT
from sim.render.text import Typist

DISCRETE, CONTINUOUS = "gym:CartPole-v1", "gym:Pendulum-v1"


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    yield
    pygame.display.quit()


def session_of(scenario, expert="random", autopilot="expert", hands=None):
    env = sim.make(scenario, render_mode="rgb_array")
    adviser = registry.make(expert, scenario) if expert else None
    return DriveSession(env, None, adviser, autopilot, hands, "test")


def open_app(session, clock=None, person=None, **options):
    open_window((640, 400))
    return App([session], WindowOptions(**({"draw_every": 8} | options)), keymap(), clock or VirtualClock(), person)


def run_until(app, done, most=3000):
    for _ in range(most):
        if done():
            return
        app.frame()
    raise AssertionError("it never happened")


def shown(app):
    head = app.playback.head
    return app.panes[0].state_at(head, app.panes[0].scene_at(head))


# --- watching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [DISCRETE, CONTINUOUS])
def test_the_panel_shows_return_step_reward_and_actions(scenario):
    app = open_app(session_of(scenario), draw_every=1)
    run_until(app, lambda: app.length == 4)
    app.playback.head, app.playback.paused = 2.0, True
    app.draw()
    state, turns = shown(app), app.sessions[0].track.turns
    assert state.assessment.scene.step == 2
    assert state.reward == turns[2].reward
    assert state.total == pytest.approx(sum(turn.reward for turn in turns[:3]))
    assert state.curves[0].words == f"{state.total:.2f}"
    assert state.curves[0].now == pytest.approx(sum(turn.reward for turn in turns[:2]))  # where decision 2 begins
    done = state.executed if scenario == DISCRETE else state.control
    assert np.array_equal(done, turns[2].action)
    assert np.array_equal(state.assessment.expert.action, turns[2].action)
    app.close()


def test_the_newest_state_shows_the_decision_that_led_to_it():
    app = open_app(session_of(CONTINUOUS))
    run_until(app, lambda: app.length == 3)
    app.playback.head = 3.0
    state, turns = shown(app), app.sessions[0].track.turns
    assert state.control is turns[-1].action
    assert state.assessment.scene.step == 2
    assert app.panes[0].scene_at(3.0).step == 3
    app.close()


def test_the_picture_is_what_the_environment_draws():
    session = session_of(DISCRETE)
    session.begin(5)
    own = gym.make("CartPole-v1", render_mode="rgb_array")
    own.reset(seed=5)
    for _ in range(3):
        session.ask_expert()
        session.act()
        own.step(session.track.turns[-1].action)
    assert np.array_equal(session.track.last.scene.pixels(), own.render())
    session.close()


def test_it_runs_in_a_real_window_beside_its_threads():
    app = open_app(session_of(DISCRETE), clock=RealClock(), pace=16.0)
    run_until(app, lambda: app.length >= 4)
    assert len({turn.scene.packed for turn in app.sessions[0].track.turns}) > 1
    app.close()


def test_a_time_limit_is_told_from_an_end():
    session = session_of(CONTINUOUS)
    session.begin(0)
    while not session.track.outcome:
        session.act()
    assert (session.track.outcome, len(session.track)) == ("time limit", 200)
    assert session.episode().outcome == "time limit"
    session.close()


# --- bars ------------------------------------------------------------------------------------------------------------

WIDTH = 400


def continuous_picture(low, high):
    low, high = np.array(low, np.float32), np.array(high, np.float32)
    size, packed = pack_pixels(np.zeros((4, 4, 3), np.uint8))
    names = tuple(f"c{k}" for k in range(len(low)))
    return Picture("gym:Some-v0", 0.0, 0.02, 0, size, packed, np.ones(len(low), bool), names, low, high)


def drawn_bars(**changes):
    picture = continuous_picture([-2.0], [2.0])
    what = Proposals(picture, np.array([1.0]), None, np.array([-1.5]), None, "learner")
    surface = pygame.Surface((WIDTH, 200))
    surface.fill(LIGHT.panel)
    ActionBars(Painter(LIGHT, Typist(), 1.0)).draw(surface, 0, WIDTH, 0, 200, replace(what, **changes))
    return pygame.surfarray.array3d(surface)[:, 18:]  # without the legend


def columns_of(image, colour):
    return np.flatnonzero((image == colour).all(axis=2).any(axis=1))


def test_bars_reach_from_zero_to_the_proposals_within_the_bounds():
    image = drawn_bars()
    learner, expert = columns_of(image, LIGHT.learner), columns_of(image, LIGHT.expert)
    assert learner.min() - expert.max() in (1, 2)  # both begin at zero
    assert len(expert) / len(learner) == pytest.approx(1.5, rel=0.05)
    full = columns_of(drawn_bars(learner=np.array([99.0])), LIGHT.learner)
    assert len(full) / len(learner) == pytest.approx(2.0, rel=0.05)  # clipped at the bound


def test_the_spread_of_a_gaussian_policy_is_drawn_on_both_sides():
    plain, spread = drawn_bars(expert=None), drawn_bars(expert=None, std=np.array([0.5]))
    changed = np.flatnonzero((plain != spread).any(axis=(1, 2)))
    learner = columns_of(plain, LIGHT.learner)
    assert len(changed) == pytest.approx(len(learner) / 2, abs=2)  # beyond the mean; before it the bar covers it
    assert changed.min() > learner.max()


def test_what_is_executed_is_marked_in_the_colour_of_who_controls():
    plain = drawn_bars()
    for controller in ("learner", "expert", "human"):
        image = drawn_bars(executed=np.array([1.0]), controller=controller)
        new = (image != plain).any(axis=2) & (image == LIGHT.controller(controller)).all(axis=2)
        middle = np.flatnonzero(new[: WIDTH - 60].any(axis=1)).mean()
        assert middle == pytest.approx(columns_of(plain, LIGHT.learner).max(), abs=2)


def test_components_beyond_the_room_are_counted():
    picture = continuous_picture([-1.0] * 30, [1.0] * 30)
    what = Proposals(picture, np.ones(30), None, None, None, "learner")
    surface = pygame.Surface((WIDTH, 300))
    end = ActionBars(Painter(LIGHT, Typist(), 1.0)).draw(surface, 0, WIDTH, 0, 200, what)
    assert end <= 200 + 14 + 8


@pytest.mark.parametrize("authority", [0.0, 0.3, 1.0])
def test_authority_divides_the_bar_between_learner_and_expert(authority):
    surface = pygame.Surface((WIDTH, 60))
    surface.fill(LIGHT.panel)
    AuthorityBar(Painter(LIGHT, Typist(), 1.0)).draw(surface, 0, WIDTH, 0, authority, "divergence", "expert")
    image = pygame.surfarray.array3d(surface)
    learner, expert = columns_of(image, LIGHT.learner), columns_of(image, LIGHT.expert)
    assert len(expert) == pytest.approx(WIDTH * authority, abs=4)
    assert len(learner) == pytest.approx(WIDTH * (1 - authority), abs=4)


def test_the_distance_of_continuous_proposals_is_a_share_of_the_range():
    picture = continuous_picture([-1.0, -2.0], [1.0, 2.0])
    expert = Decision(np.array([1.0, 2.0], np.float32))
    state = Assessment(picture, np.zeros(2), np.ones(2, bool), np.array([-1.0, -2.0], np.float32), expert=expert)
    assert separation(state) == pytest.approx(1.0)
    assert separation(replace(state, learner_action=expert.action)) == 0.0
    assert separation(replace(state, learner_action=np.array([1.0, -2.0]))) == pytest.approx(0.5**0.5)
    assert separation(replace(state, expert=None)) is None


def test_terms_are_shown_where_they_add_up_to_the_reward():
    info = {"x_velocity": 9.0, "reward_survive": 1.0, "reward_ctrl": -0.25}
    assert summands(info, 0.75) == {"survive": 1.0, "ctrl": -0.25}
    assert summands(info, 0.5) is None
    assert summands({"x_velocity": 9.0}, 0.5) is None


# --- a person --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "key", "action"),
    [
        (DISCRETE, pygame.K_RIGHT, 1),
        (DISCRETE, pygame.K_LEFT, 0),
        ("gym:LunarLander-v3", pygame.K_UP, 2),
        ("gym:LunarLander-v3", pygame.K_k, 0),
        (CONTINUOUS, pygame.K_RIGHT, [2.0]),
        (CONTINUOUS, pygame.K_LEFT, [-2.0]),
    ],
)
def test_arrow_keys_choose_actions_and_move_components(scenario, key, action):
    session = session_of(scenario, expert=None, autopilot="human", hands=Hands())
    app = open_app(session, draw_every=1)
    app.frame()
    assert app.waits_for_driver
    assert pygame.key.name(key) in app.view.driving_keys()
    post_key(key)
    run_until(app, lambda: app.length == 2)
    assert [turn.controller for turn in session.track.turns] == ["human", "human"]
    assert np.array_equal(session.track.turns[1].action, action)
    app.close()


@pytest.mark.parametrize(
    ("wish", "low", "high", "action"),
    [
        (Wish(throttle=-1.0, steering=0.4), [-1, -2, -1], [3, 2, 1], [-1.0, 0.8, 0.0]),
        (Wish(throttle=1.0), [-1, -2, -1], [3, 2, 1], [3.0, 0.0, 0.0]),
        (Wish(throttle=0.5, steering=1.0), [-2], [2], [2.0]),  # one component is moved by both
        (Wish(), [0.5, -1], [1, -0.5], [0.5, -0.5]),  # at rest: the bound that is nearest to 0
        (Wish(throttle=1.0), [-np.inf, -1], [np.inf, 1], [1.0, 0.0]),
    ],
)
def test_pedals_and_wheel_move_the_first_two_components(wish, low, high, action):
    space = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
    assert components_of(wish, space) == pytest.approx(np.array(action))


def test_a_scripted_person_records_demonstrations_that_can_be_learned_from(tmp_path):
    session = session_of(DISCRETE, autopilot="human", hands=Hands())
    person = ScriptedPerson(registry.make("random", DISCRETE), reaction_s=0.0)
    app = open_app(session, person=person, pace=0.25, episodes=1, save=tmp_path)
    run_until(app, lambda: not app.running)
    app.close()
    episodes = load_episodes(tmp_path)
    assert {turn.controller for turn in episodes[0].turns} == {"human"}
    shown_to_learner = demonstrations_of(episodes, "the recording")
    assert shown_to_learner.labels.tolist() == [turn.action for turn in episodes[0].turns]
    assert {0, 1} == set(shown_to_learner.labels.tolist())


# --- films and recordings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [DISCRETE, CONTINUOUS])
def test_an_episode_is_filmed_kept_and_replayed(scenario, tmp_path, capsys):
    film, kept = tmp_path / "film.gif", tmp_path / "kept"
    words = ["play", "expert:random", "--scenario", scenario, "--record", str(film), "--save", str(kept)]
    assert main([*words, "--size", "640x400", "--pace", "8"]) == 0
    assert film.stat().st_size > 5_000
    (episode,) = load_episodes(kept)
    assert to_bytes(from_bytes(to_bytes(episode), "again")) == to_bytes(episode)
    assert all(np.array_equal(turn.expert_action, turn.action) for turn in episode.turns)
    replay = ReplaySession([episode])
    assert isinstance(replay.track.scene(0), Picture)
    assert replay.track.outcome in capsys.readouterr().out
    app = open_app(replay, draw_every=1)
    app.frame()
    assert shown(app).assessment.scene == episode.turns[0].scene
    app.close()


def test_a_film_lasts_as_long_as_its_episode():
    session = session_of(DISCRETE)
    session.begin(1)
    while not session.track.outcome:
        session.act()
    seconds, style = len(session.track) * 0.02, FilmStyle(size=(640, 400), pace=0.5)
    pictures = list(window_frames(session, style))
    assert len(pictures) == 20 + int(np.ceil(seconds / 0.5 * 20 - 1e-6))
    assert {each.shape for each in pictures} == {(400, 640, 3)}
    session.close()


def test_evaluate_films_an_episode(tmp_path, capsys):
    film = tmp_path / "first.gif"
    words = ["evaluate", "--expert", "random", "--scenario", DISCRETE, "--episodes", "1", "--video", str(film)]
    assert main(words) == 0
    assert film.stat().st_size > 5_000


def test_a_recording_with_damaged_pictures_is_refused():
    session = session_of(DISCRETE)
    session.begin(0)
    session.act()
    episode = session.episode()
    session.close()
    for change in ({"size": (601, 400)}, {"packed": b"no zlib"}, {"names": ("Left",)}):
        turn = replace(episode.turns[0], scene=replace(episode.turns[0].scene, **change))
        with pytest.raises(UsageError, match="damaged"):
            from_bytes(to_bytes(replace(episode, turns=(turn,))), "it")


# --- training --------------------------------------------------------------------------------------------------------


GUIDED = {
    "scenario": DISCRETE,
    "expert": "random",
    "num_envs": 1,
    "evaluate_every": 0,
    "strategy_options": {"episodes": {"kind": "always"}, "arbiter": {"kind": "disagree"}},
}


def test_live_training_shows_who_has_which_authority_and_can_go_on(tmp_path, capsys):
    config = RunConfig(**GUIDED, steps=300, learner_options={"learning_starts": 200})
    session = TrainSession(start(config, tmp_path / "run", hands=Hands()))
    app = open_app(session, pace=4.0)
    seen = []
    while len(seen) < 40:
        app.frame()
        seen += [turn for turn in session.track.turns[-1:] if turn not in seen[-1:]]
    assert {(turn.controller, turn.authority, turn.control) for turn in seen} == {
        ("learner", 0.0, "learner"),
        ("expert", 1.0, "disagreement"),
    }
    post_key(pygame.K_RIGHT)
    run_until(app, lambda: session.track.turns and session.track.turns[-1].controller == "human")
    assert session.track.turns[-1].control == "person"
    assert session.track.turns[-1].action == 1
    post_key(pygame.K_RIGHT, down=False)
    pygame.event.post(pygame.Event(pygame.QUIT))
    app.run()
    resumed = resume(tmp_path / "run")
    assert resumed.loop.progress == session.trainer.loop.progress >= 40
    resumed.close()
    assert main(["play", "--replay", str(tmp_path / "run")]) == 2
    assert "traffic scenes" in capsys.readouterr().err


def test_watching_changes_nothing_in_the_training(tmp_path):
    config = RunConfig(**GUIDED, steps=60, log_every=20, learner_options={"learning_starts": 40, "core": "torch"})
    alone = start(config, tmp_path / "alone")
    alone.train()
    session = TrainSession(start(config, tmp_path / "watched", hands=Hands()))
    while session.trainer.loop.progress < 60:
        session.act()
    weights = zip(alone.loop.model.policy.parameters(), session.trainer.loop.model.policy.parameters(), strict=True)
    assert all((a == b).all() for a, b in weights)
    session.close()
    alone.close()
    watched = play_session(str(tmp_path / "watched"), SimpleNamespace(expert=None, drive=False), {}, None)
    watched.begin(0)
    watched.act()
    turn = watched.track.turns[0]
    assert turn.controller == "learner"
    assert turn.action == turn.learner_action == int(np.argmax(turn.learner_probs))
    watched.close()


# --- what cannot be shown --------------------------------------------------------------------------------------------


class Blind(gym.Env):
    """An environment that draws nothing."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Faulty(Blind):
    """An environment whose pictures cannot be made on this machine."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def render(self):
        raise AttributeError("there is no GL here")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("env", "words"), [(Blind, "draws no pictures"), (Faulty, "there is no GL here")])
def test_what_cannot_render_is_one_line_and_leaves_no_run(env, words, tmp_path, capsys):
    name = f"{env.__name__}-v0"
    gym.register(name, env, max_episode_steps=5)
    try:
        out = tmp_path / "run"
        watch = ["play", "--scenario", f"gym:{name}", "--expert", "random"]
        for more in ([], ["--record", str(tmp_path / "x.gif")], ["--train", "--out", str(out)]):
            assert main([*watch, *more]) == 2
            said = capsys.readouterr().err
            assert words in said
            assert len(said.strip().splitlines()) == 1
        assert not any(tmp_path.iterdir())
    finally:
        del gym.registry[name]


def test_experts_of_scenes_are_refused_by_name(capsys):
    assert main(["play", "expert:rule", "--scenario", DISCRETE, "--record", "x.gif"]) == 2
    assert "'rule' needs driving scenes" in capsys.readouterr().err
