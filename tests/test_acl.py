"""Windows' access lists, where the rest of the tests does not need them."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("Windows' access lists", allow_module_level=True)

from pageantry import acl, winpipe

EVERYONE = "S-1-1-0"


def grant(path: Path, rights: str) -> None:
    """Let everybody use a file."""
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    descriptor = ctypes.c_void_p()
    convert = advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW
    convert.argtypes = (ctypes.c_wchar_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
    advapi32.SetFileSecurityW.argtypes = (ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_void_p)
    assert convert(f"D:P(A;;{rights};;;{EVERYONE})(A;;FA;;;{winpipe.user()})", 1, ctypes.byref(descriptor), None)
    assert advapi32.SetFileSecurityW(str(path), 4, descriptor), ctypes.FormatError(ctypes.get_last_error())


def test_what_others_could_use_is_the_user_s_alone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    grant(path, "FA")
    assert acl.others(str(path)) == [EVERYONE]
    acl.restrict(str(path))
    assert acl.others(str(path)) == []
    assert path.read_bytes() == b"content"
    with pytest.raises(FileNotFoundError):
        acl.restrict(str(tmp_path / "none"))


def test_a_file_is_made_with_its_attributes_and_never_over_another(tmp_path: Path) -> None:
    descriptor = acl.create(str(tmp_path / "file"), stat.FILE_ATTRIBUTE_HIDDEN)
    os.write(descriptor, b"content")
    os.close(descriptor)
    assert acl.others(str(tmp_path / "file")) == []
    assert (tmp_path / "file").read_bytes() == b"content"
    with pytest.raises(FileExistsError):
        acl.create(str(tmp_path / "file"))
