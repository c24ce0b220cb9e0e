import pytest

from boards.profiling.power_meter import (
    ASSUMED_W_PER_THREAD,
    GivenPower,
    find_meter,
    mean_w,
    measure_power,
)

PMIC = """\
 3V7_WL_SW_A current(0)=0.08783300A
   3V3_SYS_A current(1)=0.05000000A
    EXT5V_V volt(24)=5.15
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
"""


def no_firmware(*question):
    return None


def write(root, path, text):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(str(text))


def zone(root, name, energy_uj, folder="intel-rapl:0"):
    place = f"sys/class/powercap/{folder}"
    write(root, f"{place}/name", f"{name}\n")
    write(root, f"{place}/energy_uj", f"{energy_uj}\n")
    write(root, f"{place}/max_energy_range_uj", "10000000\n")
    return root / place / "energy_uj"


class Clock:
    now_s = 0.0

    def read(self):
        return self.now_s


def test_a_machine_that_exposes_nothing_has_no_meter(tmp_path):
    assert find_meter(tmp_path, no_firmware) is None


def test_energy_counters_are_added_up_also_past_their_range(tmp_path):
    first = zone(tmp_path, "package-0", 9_000_000)
    second = zone(tmp_path, "package-1", 1_000_000, "intel-rapl:1")
    zone(tmp_path, "core", 5_000_000, "intel-rapl:0:0")  # A part of package-0.
    clock = Clock()
    meter = find_meter(tmp_path, no_firmware, clock.read)
    meter.start()
    first.write_text("2000000\n")  # 3 J, past the range.
    second.write_text("2000000\n")  # 1 J.
    meter.sample()
    first.write_text("4000000\n")  # 2 J.
    clock.now_s = 2.0
    assert meter.mean_w() == pytest.approx(3.0)


def test_the_whole_platform_counts_before_its_packages(tmp_path):
    zone(tmp_path, "package-0", 0)
    whole = zone(tmp_path, "psys", 0, "intel-rapl:1")
    clock = Clock()
    meter = find_meter(tmp_path, no_firmware, clock.read)
    meter.start()
    whole.write_text("7000000")
    clock.now_s = 1.0
    assert meter.mean_w() == pytest.approx(7.0)


def test_a_package_that_is_told_twice_counts_once(tmp_path):
    counters = [
        zone(tmp_path, "package-0", 0),
        zone(tmp_path, "package-0", 0, "intel-rapl-mmio:0"),
    ]
    clock = Clock()
    meter = find_meter(tmp_path, no_firmware, clock.read)
    meter.start()
    for counter in counters:
        counter.write_text("5000000")
    clock.now_s = 1.0
    assert meter.mean_w() == pytest.approx(5.0)


def test_a_graphics_card_is_not_the_machine(tmp_path):
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_input", 30_000_000)
    write(tmp_path, "sys/class/hwmon/hwmon0/name", "amdgpu\n")
    assert find_meter(tmp_path, no_firmware) is None
    write(tmp_path, "sys/class/hwmon/hwmon1/power1_input", 4_000_000)
    write(tmp_path, "sys/class/hwmon/hwmon1/name", "ina219\n")
    assert "hwmon1" in find_meter(tmp_path, no_firmware).name


def test_counters_that_may_not_be_read_are_no_meter(tmp_path):
    counter = zone(tmp_path, "package-0", 0)
    counter.unlink()
    assert find_meter(tmp_path, no_firmware) is None


def test_a_power_sensor_counts_before_the_processors_counters(tmp_path):
    zone(tmp_path, "package-0", 0)
    write(tmp_path, "sys/class/hwmon/hwmon1/power1_input", 4_200_000)
    meter = find_meter(tmp_path, no_firmware)
    assert "hwmon1/power1_input" in meter.name
    meter.start()
    write(tmp_path, "sys/class/hwmon/hwmon1/power1_input", 5_800_000)
    meter.sample()
    assert meter.mean_w() == pytest.approx(5.0)


def test_rails_of_a_raspberry_pi_5_are_added_up(tmp_path):
    meter = find_meter(tmp_path, lambda *question: PMIC if question == ("pmic_read_adc",) else None)
    meter.start()
    assert meter.mean_w() == pytest.approx(0.087833 * 3.7 + 0.05 * 3.3)


def test_a_meter_that_fails_says_nothing(tmp_path):
    counter = zone(tmp_path, "package-0", 0)
    meter = find_meter(tmp_path, no_firmware)
    meter.start()
    counter.unlink()
    assert meter.mean_w() is None
    assert measure_power(meter, GivenPower(), lambda: None, 1, 0.0).idle_w is None


def test_the_mean_is_over_the_work(tmp_path):
    sensor = "sys/class/hwmon/hwmon0/power1_input"
    write(tmp_path, sensor, 1_000_000)
    meter = find_meter(tmp_path, no_firmware)
    done = []

    def work():
        done.append(1)
        write(tmp_path, sensor, 9_000_000)

    found = mean_w(meter, work, 0.05)
    assert done
    assert found == pytest.approx((1 + 9 * len(done)) / (1 + len(done)))


def test_power_is_measured(tmp_path):
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_input", 3_000_000)
    found = measure_power(find_meter(tmp_path, no_firmware), GivenPower(), lambda: None, 1, 0.01)
    for figure in (found.idle_w, found.busy_w):
        assert (figure.value, figure.provenance) == (3.0, "measured")


def test_what_a_person_says_counts_before_a_meter(tmp_path):
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_input", 3_000_000)
    meter = find_meter(tmp_path, no_firmware)
    found = measure_power(meter, GivenPower(1.5, 4.5), lambda: None, 1, 0.0)
    assert (found.idle_w.value, found.busy_w.value) == (1.5, 4.5)
    assert "--busy-w" in found.busy_w.source


def test_without_meter_and_word_busy_power_is_assumed_and_idle_power_left_out():
    found = measure_power(None, GivenPower(), lambda: None, 2, 0.0)
    assert found.idle_w is None
    assert found.busy_w.value == 2 * ASSUMED_W_PER_THREAD
    assert found.busy_w.provenance == "assumed"
