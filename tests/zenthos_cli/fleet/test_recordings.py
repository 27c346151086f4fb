import gzip
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from zenthos_cli.fleet.mapping import LoadedMapping, load_mapping
from zenthos_cli.fleet.recordings import Recording, read_recordings
from zenthos_cli.fleet.replay import between, samples, shifted_to
from zenthos_core.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared/data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the recorded measurements lie beside the project, and do not here"
)

T0, T1 = "2024-01-01 00:00:00", "2024-01-01 01:00:00"
JOINED = r"""
farm = "Test"
device_model = "esp32-s3"
[files]
soil = "*_soil.csv*"
atm = "*_atm.*"
[device]
file = 'st_(?P<station>\d+)_'
id = "Test-{station}"
[time]
text = "when"
[sensors]
soil_moisture = "100 * vwc"
temperature = "air"
light_level = "atm.sun / gain"
"""


def mapping(folder: Path, text: str = JOINED) -> LoadedMapping:
    path = folder / "mapping.toml"
    path.write_text(text)
    return load_mapping(path)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.fixture
def station(tmp_path: Path) -> Path:
    write(
        tmp_path,
        "st_01_soil.csv.gz",
        "vwc,when\n0.25,2024-01-01 00:00:00\n,2024-01-01 01:00:00\n0.2,2024-01-01 02:00:00\n",
    )
    write(
        tmp_path,
        "st_01_atm.csv",
        "when,air,sun,gain\n2024-01-01 00:00:00,3.5,10,2\n2024-01-01 01:00:00,,1,0\n"
        "2024-01-01 03:00:00,NA,8,2\n",
    )
    write(tmp_path, "st_02_soil.csv", "when,vwc\n2024-01-01 00:00:00,0.5\n")
    return tmp_path


def values(recording: Recording) -> list[tuple[int, dict[str, float]]]:
    return [(sample.time - 1_704_067_200, sample.sensors) for sample in samples(recording.table)]


def test_files_are_joined_on_time_and_gaps_are_left_out(station: Path) -> None:
    one, two = read_recordings(mapping(station), [station])
    assert one.device_id == "test-01"
    assert values(one) == [
        (0, {"soil_moisture": 25.0, "temperature": 3.5, "light_level": 5.0}),
        (7200, {"soil_moisture": 20.0}),
        (10800, {"light_level": 4.0}),
    ]  # at 01:00 one cell is empty, one is empty, one divides by zero: no reading
    assert two.device_id == "test-02"
    assert values(two) == [(0, {"soil_moisture": 50.0})]


def test_files_may_be_named_one_by_one(station: Path) -> None:
    files = [station / "st_01_soil.csv.gz", station / "st_01_atm.csv"]
    (one,) = read_recordings(mapping(station), files)
    assert len(values(one)) == 3


def test_parquet_reads_as_csv_does(station: Path) -> None:
    (station / "st_01_atm.csv").unlink()
    when = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (0, 1)]
    pl.DataFrame({"sun": [8, 6], "gain": [2, 2], "when": when, "air": [1.0, None]}).write_parquet(
        station / "st_01_atm.parquet"
    )
    one, _ = read_recordings(mapping(station), [station])
    assert values(one)[:2] == [
        (0, {"soil_moisture": 25.0, "temperature": 1.0, "light_level": 4.0}),
        (3600, {"light_level": 3.0}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "st_03_soil.csv",
            f"when,vwc\n{T0},0.1\n{T1},x1\n",
            "line 3, column vwc: `x1` is not a number",
        ),
        (
            "st_03_soil.csv",
            "when,vwc\nnoon,0.1\n",
            "line 2, column when: `noon` is not a time",
        ),
        ("st_03_soil.csv", f"time,vwc\n{T0},0.1\n", r"line 11: .*no column `when`"),
        ("st_03_soil.csv", f"when,vwc\n{T0},1\n{T0},2\n", "occurs twice"),
        ("st_03_soil.csv", "", "not a readable table"),
        ("none_soil.csv", "when,vwc\n", "not found in the name none_soil.csv"),
        ("st_03_atm.parquet", "rubbish", "not a readable table"),
    ],
)
def test_bad_data_is_reported_with_file_line_and_column(
    station: Path, name: str, text: str, problem: str
) -> None:
    write(station, name, text)
    if "twice" in problem:
        write(station, name.replace("soil", "atm"), f"when,air,sun,gain\n{T0},1,1,1\n")
    with pytest.raises(ConfigurationError, match=problem):
        read_recordings(mapping(station), [station])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"air"', '"aire"', r"line 14: .*no file has a column `aire`; there are: air, gain, sun"),
        ('"air"', '"when"', r"line 14: .*write atm.when or soil.when"),
        ('"*_atm.*"', '"*_air.*"', r"line 6: no file matches `\*_air\.\*`"),
        ('"Test-{station}"', '"{station}"', r"gives the device id `01`"),
    ],
)
def test_a_mapping_that_does_not_fit_is_reported(
    station: Path, old: str, new: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        read_recordings(mapping(station, JOINED.replace(old, new)), [station])


def test_a_column_may_name_the_device(tmp_path: Path) -> None:
    write(
        tmp_path,
        "all.csv",
        "node,ts,f\nB,1700000000000,50\nA,1700000060500,32\nB,1700000120000,41\n",
    )
    text = """
        farm = "Test"
        device_model = "esp32-s3"
        [files]
        all = "*.csv"
        [device]
        column = "node"
        id = "node-{column}"
        [time]
        text = "{ts}"
        format = "epoch_ms"
        [sensors]
        temperature = "(f - 32) / 1.8"
    """  # fmt: skip
    a, b = read_recordings(mapping(tmp_path, text), [tmp_path])
    assert [s.time for s in samples(a.table)] == [1_700_000_060]
    assert [s.sensors["temperature"] for s in samples(b.table)] == [10.0, 5.0]


def test_local_time_becomes_utc(station: Path) -> None:
    text = JOINED.replace('text = "when"', 'text = "when"\ntimezone = "Australia/Sydney"')
    one, _ = read_recordings(mapping(station, text), [station])
    assert values(one)[0][0] == -11 * 3600


def test_a_part_of_the_time_may_be_chosen(station: Path) -> None:
    found = read_recordings(mapping(station), [station])
    (one,) = between(
        found, datetime(2024, 1, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 3, tzinfo=UTC)
    )
    assert [when for when, _ in values(one)] == [7200]
    with pytest.raises(ConfigurationError, match="nothing to replay"):
        between(found, datetime(2025, 1, 1, tzinfo=UTC), None)


def test_shifted_recordings_end_within_the_last_hour(station: Path) -> None:
    found = read_recordings(mapping(station), [station])
    now = 1_795_000_000
    one, two = shifted_to(found, now)
    assert 0 <= now - one.table["time"][-1] < 3600
    assert one.table["time"][0] - two.table["time"][0] == 0


def test_places_come_from_a_table(station: Path) -> None:
    write(station, "places.csv", "name,latitude,longitude\nst-01,39.5,-96.5\nst-02,,\n")
    text = JOINED + '[location]\ntable = "places.csv"\nkey = "name"\nmatch = "st-{station}"\n'
    (one,) = read_recordings(mapping(station, text), [*station.glob("st_01*")])
    assert one.place == (39.5, -96.5)
    with pytest.raises(ConfigurationError, match="no coordinates of `st-02`"):
        read_recordings(mapping(station, text), [station])
    with pytest.raises(ConfigurationError, match="no column `code`"):
        read_recordings(mapping(station, text.replace('"name"', '"code"')), [station])
    with pytest.raises(ConfigurationError, match=r"no file `other\.csv`"):
        read_recordings(mapping(station, text.replace("places", "other")), [station])


@needs_data
def test_kings_creek_comes_out_row_for_row() -> None:
    """Counts and values worked out from the files with the csv module, not with our code."""
    import csv

    folder = DATA / "kings_creek"
    found = read_recordings(load_mapping(ROOT / "examples/kings_creek/mapping.toml"), [folder])
    assert [r.device_id for r in found] == [f"kings-creek-{n}" for n in ("03", "05", "06", "10")]
    for recording in found:
        number = recording.device_id[-2:]
        tables = []
        for kind in ("soil", "atm"):
            with gzip.open(folder / kind / f"station_{number}_{kind}.csv.gz", "rt") as file:
                tables.append({row["timestamp_utc"]: row for row in csv.DictReader(file)})
        expected = {}
        for when in sorted(tables[0].keys() | tables[1].keys()):
            row = {**tables[1].get(when, {}), **tables[0].get(when, {})}
            number_of = {k: float(v) for k, v in row.items() if k != "timestamp_utc" and v}
            sensors = {}
            for sensor, column, factor in (
                ("soil_moisture", "vwc_5cm", 100),
                ("soil_moisture_20cm", "vwc_20cm", 100),
                ("soil_moisture_40cm", "vwc_40cm", 100),
                ("temperature", "temp_air", 1),
                ("light_level", "solar_rad", 120),
                ("rainfall_mm", "precip_total", 1),
            ):
                if column in number_of:
                    sensors[sensor] = number_of[column] * factor
            if {"vapor_pressure", "vpd"} <= number_of.keys():
                actual, deficit = number_of["vapor_pressure"], number_of["vpd"]
                sensors["humidity"] = 100 * actual / (actual + deficit)
            if sensors:
                moment = datetime.fromisoformat(when).replace(tzinfo=UTC)
                expected[int(moment.timestamp())] = sensors
        assert recording.table["time"].to_list() == list(expected)
        for sample in samples(recording.table):
            assert sample.sensors == pytest.approx(expected[sample.time], abs=1e-6)
    assert found[0].place == (39.0883712, -96.5835133)


@needs_data
def test_simpact_gives_thirteen_devices() -> None:
    mapping = load_mapping(ROOT / "examples/simpact/mapping.toml")
    found = read_recordings(mapping, [DATA / "simpact_ccby"])
    assert [recording.table.height for recording in found] == [1_528] * 13
    first = next(samples(found[0].table))
    assert first == (1_668_470_400, {"soil_moisture": 11.450547}, None, None)
