"""A wrong data file fails when it is loaded, and the message says where."""

from pathlib import Path

import pytest
from neuron_device_model.catalog import (
    CatalogError,
    UnknownInstanceType,
    UnknownSdkRelease,
    instance_type,
    sdk_release,
)
from neuron_device_model.catalog.chips import chips, load_chips
from neuron_device_model.catalog.documents import DATA, parse
from neuron_device_model.catalog.instances import load_family
from neuron_device_model.catalog.sdk import load_sdk_releases
from neuron_device_model.catalog.ultraservers import load_ultraservers


def edited(source: str, tmp_path: Path, old: str, new: str) -> Path:
    text = (DATA / source).read_text()
    assert old in text
    path = tmp_path / source
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vcpus = 4\n", "", r"inf2\.toml: instance_type\[inf2\.xlarge\]: missing key vcpus"),
        ("vcpus = 4\n", "vcpus = 4\nvcpu = 4\n", r"instance_type\[inf2\.xlarge\]: unknown key vcpu$"),
        ("vcpus = 4\n", 'vcpus = "4"\n', r"instance_type\[inf2\.xlarge\]: vcpus must be an integer, not '4'"),
        ("vcpus = 4\n", "vcpus = true\n", "vcpus must be an integer, not True"),
        ("shape = [1]", "shape = 1", "shape must be an array of integers, not 1"),
        ("shape = [1]", 'shape = ["1"]', r"shape must be an array of integers, not \['1'\]"),
        ("shape = [1]", "shape = [2]", r"inf2\.xlarge\]: topology single cannot have shape \(2,\)"),
        ("shape = [12]", "shape = [11]", r"inf2\.48xlarge\]: a ring of shape \(11,\) has 11 chips"),
        ('topology = "ring"', 'topology = "circle"', "unknown topology 'circle'; one of single, chain, ring"),
        ('chip = "inferentia2"', 'chip = "inferentia3"', "unknown chip 'inferentia3': did you mean inferentia2?"),
        ('board = "inf2.xlarge"', 'board = "inf2.large"', "unknown board 'inf2.large': did you mean inf2.xlarge?"),
        ("vcpus = 4\n", 'vcpus = 4\nefa_map = "trn2"\n', "unknown efa_map 'trn2': Known: none"),
        ("vcpus = 4\n", 'vcpus = 4\nultraserver = "x"\n', "unknown ultraserver 'x'"),
        ('neuronlink = "192 GiB/s"', 'neuronlink = "192"', "neuronlink must be a figure and GB/s or GiB/s or TB/s"),
        ("numa_node = -1", "numa_node = 0", r"board\[inf2\.xlarge\]: .*cpu_affinity has no entry for NUMA node 0"),
        ("index = 0", "index = 1", r"devices\[0\]: index must be 0: devices are listed in order"),
        ('"-1" = "0-3"', '"-1" = 3', "cpu_affinity.-1 must be a string, not 3"),
        ('name = "inf2.8xlarge"', 'name = "inf2.xlarge"', r"inf2\.toml: board\[inf2\.xlarge\] is listed twice"),
        ("[[board]]", "[[boards]]", "unknown board"),
        ("[[board]]", "[[board", r"inf2\.toml: .*line"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_family(parse(edited("inf2.toml", tmp_path, old, new)), chips(), [])


def test_a_board_needs_a_device(tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    file.write_text('[[board]]\nname = "b"\nsource = "s"\ncpu_affinity = {}\ndevices = []\n')
    with pytest.raises(CatalogError, match=r"empty\.toml: board\[b\]: a board needs at least one device"):
        load_family(parse(file), chips(), [])


def test_devices_are_tables(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    file.write_text('[[board]]\nname = "b"\nsource = "s"\ncpu_affinity = {}\ndevices = [3]\n')
    with pytest.raises(CatalogError, match=r"board\[b\]: devices\[0\] must be a table, not 3"):
        load_family(parse(file), chips(), [])


def test_an_efa_map_must_fit_its_board(tmp_path: Path) -> None:
    path = edited("trn2.toml", tmp_path, '    "0000:c9:00.0", ', "    ")
    with pytest.raises(CatalogError, match=r"efa_map trn2 has 15 devices, board trn2\.48xlarge has 16"):
        load_family(parse(path), chips(), ["trn2"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bf16 = 64", "bf15 = 64", r"chips\.toml: chip\[inferentia\]: tflops: unknown precision bf15"),
        ("bf16 = 64", 'bf16 = "64"', r"tflops\.bf16 must be a number, not '64'"),
        ("default_logical_neuron_core = 1", "default_logical_neuron_core = 2", "is not one of logical_neuron_core_v"),
    ],
)
def test_a_wrong_chip_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_chips(parse(edited("chips.toml", tmp_path, old, new)))


def test_a_wrong_sdk_release_is_named(tmp_path: Path) -> None:
    path = edited("sdk.toml", tmp_path, 'tools_version = "2.32.28.0"\n', "")
    with pytest.raises(CatalogError, match=r"sdk\.toml: release\[2\.32\.0\]: missing key tools_version"):
        load_sdk_releases(parse(path))


def test_a_wrong_ultraserver_is_named(tmp_path: Path) -> None:
    path = edited("ultraservers.toml", tmp_path, "[[0, 1], [1, 2], [2, 3], [3, 0]]", "[0, 1]")
    with pytest.raises(CatalogError, match=r"ultraserver\[trn2\]: server_links must be an array of arrays"):
        load_ultraservers(parse(path))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("trn2.48xl", "trn2.48xlarge"), ("TRN1.32xlarge", "trn1.32xlarge"), ("inf2.24", "inf2.24xlarge")],
)
def test_an_unknown_type_is_answered_with_the_nearest_and_all(name: str, nearest: str) -> None:
    with pytest.raises(UnknownInstanceType) as caught:
        instance_type(name)
    assert f"unknown instance type {name!r}: did you mean {nearest}? Known: inf1.xlarge, " in str(caught.value)
    assert "trn2u.48xlarge" in str(caught.value)


def test_an_unknown_sdk_release_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownSdkRelease, match=r"unknown Neuron SDK version '2\.32': did you mean 2\.32\.0\?"):
        sdk_release("2.32")
