"""Files that are written whole: through a link, and in no device's place."""

import os
from pathlib import Path

import pytest

from sae_lens_signaware.files import write_json, write_text


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "folder" / "real.json", tmp_path / "link.json"
    write_json({"a": 1}, real)
    link.symlink_to(real)
    write_json({"a": 2}, link)
    assert link.is_symlink()
    assert real.read_text() == '{\n  "a": 2\n}\n'
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["real.json"]


def test_no_file_is_put_in_the_place_of_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe is a device or a pipe; name a file$"):
        write_text("a", tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(OSError, match=r"^/dev/null is a device or a pipe; name a file$"):
        write_text("a", "/dev/null")
    assert Path("/dev/null").is_char_device()
