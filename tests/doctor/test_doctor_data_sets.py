"""The doctor on data sets: whole, damaged, missing, another's."""

from pathlib import Path

import pytest

from nin_jax.data import idx
from nin_jax.doctor import data_sets
from tests.support.doctor_fakes import by_name, is_ok, warns
from tests.support.synthetic_idx import change, fashion, no_network_no_home, write_files

__all__ = ["fashion", "no_network_no_home"]  # fixtures


@pytest.mark.usefixtures("no_network_no_home")
def test_data_that_are_good(fashion, tmp_path, monkeypatch):
    write_files(tmp_path / "data" / "fashion-mnist", fashion)
    checks = by_name(data_sets.data_checks(tmp_path / "data"))
    assert list(checks) == ["folder", *idx.IDX_SETS]
    assert is_ok(checks["folder"], str(tmp_path / "data"))
    assert is_ok(checks["fashion_mnist"], "official MD5s", str(tmp_path / "data" / "fashion-mnist"))
    assert is_ok(checks["mnist"], "not found", idx.IDX_SETS["mnist"].url)
    monkeypatch.setenv("NIN_DATA_DIR", str(tmp_path / "data"))
    assert by_name(data_sets.data_checks(None)) == checks
    write_files(idx.user_folder() / "fashion-mnist", fashion)
    monkeypatch.delenv("NIN_DATA_DIR")
    found = by_name(data_sets.data_checks(None))["fashion_mnist"]
    assert is_ok(found, str(idx.user_folder()))


@pytest.mark.usefixtures("no_network_no_home")
def test_files_of_one_set_are_no_damage_to_another(fashion, tmp_path):
    write_files(tmp_path, fashion)  # where mnist and kmnist are looked for too
    checks = by_name(data_sets.data_checks(tmp_path))
    assert is_ok(checks["fashion_mnist"])
    assert is_ok(checks["mnist"], "not found")


@pytest.mark.usefixtures("no_network_no_home")
def test_no_data_yet(tmp_path):
    checks = by_name(data_sets.data_checks(None))
    assert all(is_ok(check) for check in checks.values())
    assert is_ok(checks["fashion_mnist"], "not found", "downloads it")
    assert not idx.user_folder().exists()
    given = by_name(data_sets.data_checks(tmp_path / "none"))
    assert warns(given["folder"], "is no folder")
    assert warns(given["fashion_mnist"], "not found", idx.IDX_SETS["fashion_mnist"].url)


@pytest.mark.usefixtures("no_network_no_home")
def test_data_that_are_damaged(fashion, tmp_path, monkeypatch):
    first, second, third, fourth = idx.FILE_NAMES
    change(monkeypatch, "mnist", md5={third: idx.IDX_SETS["fashion_mnist"].md5[third]})
    change(monkeypatch, "fashion_mnist", md5=idx.IDX_SETS["fashion_mnist"].md5 | {third: "0" * 32})
    folder = write_files(tmp_path / "fashion-mnist", fashion)
    (folder / first).write_bytes(fashion[first][:-1])
    (folder / second).unlink()
    check = data_sets.data_set_check("fashion_mnist", tmp_path, True)
    assert warns(check, f"{first} is damaged, {second} is missing, {third} is MNIST's")
    assert warns(check, idx.IDX_SETS["fashion_mnist"].url)
    assert fourth not in check.found
    check = data_sets.data_set_check("fashion_mnist", tmp_path, False)
    assert warns(check, "the next run that needs it fetches it")


def test_states_of_a_file(fashion, tmp_path, monkeypatch):
    path, idx_set = tmp_path / idx.FILE_NAMES[0], idx.IDX_SETS["fashion_mnist"]
    assert data_sets.file_state(path, idx_set) == "missing"
    path.write_bytes(fashion[path.name])
    assert data_sets.file_state(path, idx_set) == "intact"
    monkeypatch.setattr(idx, "MAX_BYTES", 10)
    assert data_sets.file_state(path, idx_set) == "damaged"
    monkeypatch.undo()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    assert data_sets.file_state(path, idx_set) == "unreadable"
