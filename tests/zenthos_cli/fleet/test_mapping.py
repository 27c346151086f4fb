from pathlib import Path

import pytest

from zenthos_cli.fleet.mapping import load_mapping
from zenthos_core.errors import ConfigurationError

EXAMPLES = Path(__file__).parents[3] / "examples"
GOOD = r"""farm = "Test"
device_model = "esp32-s3"

[files]
soil = "*_soil.csv"

[device]
file = 'st_(?P<station>\d+)_'
id = "test-{station}"

[time]
text = "when"

[sensors]
soil_moisture = "100 * vwc"
temperature = "t"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text)
    return path


def test_a_good_mapping_loads(tmp_path: Path) -> None:
    mapping = load_mapping(write(tmp_path, GOOD))
    assert set(mapping.sensors) == {"soil_moisture", "temperature"}


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*/mapping.toml")), ids=lambda p: p.parent.name
)
def test_the_examples_load(path: Path) -> None:
    assert load_mapping(path).sensors


def test_another_conversion_gives_other_message_ids(tmp_path: Path) -> None:
    one = load_mapping(write(tmp_path, GOOD)).salt
    assert load_mapping(write(tmp_path, GOOD.replace("Test", "Other"))).salt == one
    assert load_mapping(write(tmp_path, GOOD.replace("100 *", "99 *"))).salt != one


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("100 * vwc", "100 ** vwc", 15, "sensor soil_moisture: .*not allowed"),
        ("100 * vwc", "100 * ", 15, "not an expression"),
        ("soil_moisture =", '"Soil Moisture" =', 15, "use a-z, 0-9 and _"),
        ('"esp32-s3"', '"ESP 32"', 2, "use a-z, 0-9 and dashes"),
        ('text = "when"', "text = 5", 12, "Expected `str`, got `int`"),
        ('text = "when"', 'txet = "when"', 12, "unknown field `txet`"),
        (r"(?P<station>\d+)", "(?P<station>", 8, "not a regular expression"),
        ("test-{station}", "test-{node}", 9, "{node} is none of column, station"),
        ("test-{station}", "test", 9, "gives all devices one id"),
        ("[device]\n", "[device]\ncolumn = 'x'\n", 7, "needs one of `file`, `column`"),
        ('device_model = "esp32-s3"', "", 1, "missing required field `device_model`"),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, problem: str
) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigurationError, match=problem) as caught:
        load_mapping(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")


def test_broken_toml_is_reported_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mapping\.toml: .*line 2, column"):
        load_mapping(write(tmp_path, 'farm = "x"\nfiles = = 1\n'))


def test_a_mapping_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read mapping file"):
        load_mapping(tmp_path / "none.toml")
