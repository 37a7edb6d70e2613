"""demo.py deletes only what an earlier demo made."""

from __future__ import annotations

import pytest

import demo
from modules.config import Config, load_config, save_config
from modules.console import UserError


def test_a_folder_that_no_demo_made_is_refused_and_left_alone(tmp_path, capsys):
    keep = tmp_path / "songs" / "mine.wav"
    keep.parent.mkdir()
    keep.write_text("mine", encoding="utf-8")
    assert demo.main(["--folder", str(keep.parent)]) == 2
    assert str(keep.parent) in capsys.readouterr().err
    assert [path.name for path in keep.parent.iterdir()] == ["mine.wav"]
    with pytest.raises(UserError, match="mine.wav"):
        demo.clear(keep)
    assert keep.read_text(encoding="utf-8") == "mine"


def test_an_earlier_demos_folder_an_empty_one_and_a_missing_one_are_made_anew(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "inner", tmp_path / "empty"):
        demo.clear(folder)
        (folder / "logs").mkdir()
        (folder / "logs" / "G_1.pth").touch()
        demo.clear(folder)
        assert [path.name for path in folder.iterdir()] == [demo.MARK]


def test_few_steps_are_an_epoch_at_least_and_the_discriminator_takes_part_in_them(tmp_path):
    (tmp_path / "filelists").mkdir()
    (tmp_path / "filelists/train.txt").write_text("a.wav\n" * 24, encoding="utf-8")
    (tmp_path / "configs").mkdir()
    save_config(Config(), tmp_path / "configs/config.json")
    demo.shrink(tmp_path, steps=2, seed=7)
    train = load_config(tmp_path / "configs/config.json").train
    assert (train.epochs, train.seed) == (1, 7) and train.discriminator_start_step <= 2
