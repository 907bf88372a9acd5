"""Run folders, checkpoints, zips and recordings of others are read without running any of their code."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from run_folders import Marker, copied, trained
from safetensors.torch import save_file
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

from experts import registry
from experts.data.episodes import load_episodes
from experts.provider import Context
from experts.sb3_zip import load_zip
from lgdrl import training
from lgdrl.checkpoints import read_checkpoint, write_checkpoint
from lgdrl.cli import main
from lgdrl.learners.discrete_sac import DiscreteSAC
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.errors import UsageError
from sim.trust import trusted, trusting


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("untrusted") / "run")


@pytest.fixture
def run(finished, tmp_path):
    return Run(copied(finished, tmp_path / "run"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


def rewrite(path, changes):
    """Replace members of a zip."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **changes(members)}.items():
            archive.writestr(name, content)


def in_data(marker):
    """A pickle in place of every serialised object of `data`."""

    def change(members):
        data = json.loads(members["data"])
        content = base64.b64encode(cloudpickle.dumps(Marker(marker))).decode()
        for value in data.values():
            if isinstance(value, dict) and ":serialized:" in value:
                value[":serialized:"] = content
        return {"data": json.dumps(data).encode()}

    return change


def in_tensors(name, marker):
    def change(members):
        buffer = io.BytesIO()
        torch.save({"a": Marker(marker)}, buffer)
        return {name: buffer.getvalue()}

    return change


def commands(folder):
    return (
        ["evaluate", str(folder), "--episodes", "1"],
        ["train", "--resume", str(folder)],
        ["evaluate", "--expert", f"policy:{folder}", "--scenario", "gym:CartPole-v1", "--episodes", "1"],
    )


def test_a_pickle_in_the_zip_of_a_run_is_not_even_read(run, marker):
    for member in ("policy.pth", "pytorch_variables.pth"):
        rewrite(run.policy_zip, in_tensors(member, marker))
    rewrite(run.policy_zip, in_data(marker))
    for words in commands(run.folder):
        assert main(words) == 0
    assert not marker.exists()


@pytest.mark.parametrize("name", ["policy.safetensors", "checkpoint.pt"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_in_place_of_a_file_is_one_line(run, marker, capsys, name, form):
    content = {"loop": Marker(marker), "elapsed_s": 0.0}
    if form == "pickle":
        (run.folder / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, run.folder / name)
    codes = [main(words) for words in commands(run.folder)]
    assert codes == ([2, 0, 0] if name == "policy.safetensors" else [0, 2, 0])  # the checkpoint writes the policy again
    errors = capsys.readouterr().err.splitlines()
    assert all("damaged" in line and name in line for line in errors)
    assert not marker.exists()


def test_a_pickle_in_the_state_of_an_environment_is_refused(run, marker, capsys):
    state = read_checkpoint(run.checkpoint)
    state["loop"]["envs"]["envs"][0]["env"]["pickle"] = pickle.dumps(Marker(marker))
    write_checkpoint(run.checkpoint, state)
    assert main(["train", "--resume", str(run.folder)]) == 2
    error = capsys.readouterr().err
    assert "posix.mkdir" in error
    assert "--trust" in error
    assert error.count("\n") == 1
    assert not marker.exists()
    assert main(["train", "--resume", str(run.folder), "--trust"]) == 2  # it is no environment
    assert marker.exists()
    assert not trusted()


@pytest.mark.parametrize("inside", ["replay", "strategy", "learner", "counters"])
def test_a_pickle_anywhere_in_a_checkpoint_is_refused(run, marker, inside):
    content = torch.load(run.checkpoint, weights_only=True)
    content["state"]["loop"]["model"][inside]["extra"] = Marker(marker)
    torch.save(content, run.checkpoint)
    with pytest.raises(UsageError, match="damaged or of an earlier version"):
        training.resume(run.folder)
    assert not marker.exists()


def test_an_array_of_objects_in_a_replay_buffer_is_refused(run, marker):
    content = torch.load(run.checkpoint, weights_only=True)
    column = content["state"]["loop"]["model"]["replay"]["columns"]["rewards"]
    column["dtype"] = "|O"
    column["data"] = torch.frombuffer(bytearray(pickle.dumps(Marker(marker)).ljust(64)), dtype=torch.uint8)
    torch.save(content, run.checkpoint)
    with pytest.raises(UsageError, match="damaged"):
        training.resume(run.folder)
    assert not marker.exists()


def test_a_state_of_highway_env_builds_highway_env_and_nothing_else(marker):
    import sim

    env = sim.make("highway-fast-v0", "highway-env")
    env.reset(seed=1)
    good = env.get_state()
    names = ["os system", "highway_env.utils importlib.import_module", "sim.highway.traffic Private_os__DOT__system"]
    names += ["highway_env.envs HighwayEnv", "highway_env.vehicle.behavior np", "builtins eval", "builtins getattr"]
    calls = [f"c{name.replace(' ', chr(10))}\n(S'touch {marker}'\ntR.".encode() for name in names]
    for harmful in (pickle.dumps(Marker(marker)), *calls):
        with pytest.raises(UsageError, match="could run code"):
            env.set_state(good | {"environment": harmful})
    env.set_state(good)
    assert not marker.exists()
    env.close()


def test_a_recording_with_a_pickle_is_refused(tmp_path, marker):
    np.savez(tmp_path / "a.npz", header=np.array([Marker(marker)], dtype=object))
    np.savez(tmp_path / "b.npz", header=np.frombuffer(b"{}", np.uint8), obs=np.array([Marker(marker)], dtype=object))
    for name in ("a", "b"):
        with pytest.raises(UsageError):
            load_episodes(tmp_path / f"{name}.npz")
    assert not marker.exists()


@pytest.mark.parametrize("algorithm", [A2C, DDPG, DQN, PPO, SAC, TD3])
def test_zips_of_sb3_predict_alike_without_their_pickles(tmp_path, marker, algorithm):
    continuous = algorithm in (DDPG, SAC, TD3)
    env = gymnasium.make("Pendulum-v1" if continuous else "CartPole-v1")
    options = {"net_arch": [12, 7], "activation_fn": torch.nn.Tanh}
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", policy_kwargs=options)
    model.save(tmp_path / "model.zip")
    rewrite(tmp_path / "model.zip", in_data(marker))
    rewrite(tmp_path / "model.zip", in_tensors("pytorch_variables.pth", marker))
    obs = np.random.default_rng(0).normal(size=(9, *env.observation_space.shape)).astype(np.float32)
    found = load_zip(tmp_path / "model.zip")
    np.testing.assert_array_equal(found.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert found.action_space == model.action_space
    with registry.make(f"policy:{tmp_path / 'model.zip'}", "gym:CartPole-v1") as expert:
        legal = None if continuous else np.ones(2, bool)
        assert expert.decide([Context(obs[0], env.action_space, legal=legal)])[0].action is not None
    assert not marker.exists()
    env.close()


def test_a_pickle_in_the_weights_of_a_zip_is_refused_and_needs_trust(tmp_path, marker):
    PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu").save(tmp_path / "model.zip")
    rewrite(tmp_path / "model.zip", in_tensors("policy.pth", marker))
    with pytest.raises(UsageError, match="--trust"):
        load_zip(tmp_path / "model.zip")
    assert not marker.exists()


def test_a_zip_with_a_policy_of_its_author_needs_trust(tmp_path):
    class Own(torch.nn.ReLU):
        pass

    options = {"activation_fn": Own}
    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs=options)
    model.save(tmp_path / "model.zip")
    with pytest.raises(UsageError, match="--trust") as error:
        load_zip(tmp_path / "model.zip")
    assert "\n" not in str(error.value)
    with trusting(True):
        found = load_zip(tmp_path / "model.zip")
    obs = np.zeros((3, 4), np.float32)
    np.testing.assert_array_equal(found.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize(
    "printed",
    [
        {"__module__": "os"},
        {"__module__": "stable_baselines3.ppo.policies.os"},
        {"__init__": "<function system.__init__ at 0x1>"},
        {"__init__": "<function partial.__init__ at 0x1>"},
    ],
)
def test_a_zip_cannot_name_classes_outside_of_sb3s_policies(tmp_path, printed):
    PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu").save(tmp_path / "model.zip")

    def change(members):
        data = json.loads(members["data"])
        data["policy_class"] |= printed
        return {"data": json.dumps(data).encode()}

    rewrite(tmp_path / "model.zip", change)
    with pytest.raises(UsageError):
        load_zip(tmp_path / "model.zip")


@pytest.mark.parametrize(
    "word", ["os.system", "stable_baselines3.common.utils.os", "torch.nn.modules.activation.warnings"]
)
@pytest.mark.parametrize("option", ["activation_fn", "features_extractor_class"])
def test_a_zip_cannot_name_functions_as_options(tmp_path, option, word):
    PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu").save(tmp_path / "model.zip")

    def change(members):
        data = json.loads(members["data"])
        data["policy_kwargs"] = {option: f"<class '{word}'>"}
        return {"data": json.dumps(data).encode()}

    rewrite(tmp_path / "model.zip", change)
    with pytest.raises(UsageError):
        load_zip(tmp_path / "model.zip")


def test_a_policy_file_equals_the_learner_that_it_was_written_from(run):
    from_file = load_policy(run)
    from_sb3 = DiscreteSAC.load(run.policy_zip, device="cpu")
    first, second = from_file.policy.state_dict(), from_sb3.policy.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    assert torch.equal(from_file.log_alpha, from_sb3.log_alpha)
    assert from_file.config == from_sb3.config
    assert (from_file.observation_space, from_file.action_space) == (from_sb3.observation_space, from_sb3.action_space)
    with registry.make(f"policy:{run.policy}", "gym:CartPole-v1") as expert:
        np.testing.assert_array_equal(
            expert.model.predict(np.zeros(4, np.float32), deterministic=True)[0],
            from_file.predict(np.zeros(4, np.float32), deterministic=True)[0],
        )


def test_a_policy_file_of_another_make_is_one_line(run):
    save_file({"a": torch.zeros(3)}, run.policy)
    with pytest.raises(UsageError, match="was not written by training"):
        load_policy(run)
    save_file({"a": torch.zeros(3)}, run.policy, {"about": json.dumps({"format": "lgdrl-policy-1", "sha256": ""})})
    with pytest.raises(UsageError, match="damaged, or of another version"):
        load_policy(run)


def test_the_word_of_trust_is_not_taken_from_a_config(run, capsys):
    text = run.config.read_text()
    run.config.write_text(text + "trust: true\n")
    assert main(["evaluate", str(run.folder), "--episodes", "1"]) == 2
    run.config.write_text(text.replace("expert_options: {}", "expert_options: {trust: true}"))
    assert main(["train", "--resume", str(run.folder)]) == 2
    assert "trust" in capsys.readouterr().err
