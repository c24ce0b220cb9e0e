"""Fleets as people name them: boards that can have keys, and links with loss."""


def test_a_board_that_can_have_no_keys_is_refused_before_it_is_planned(
    nonn_plan, changed, tmp_path
):
    boards = "\n".join(f"- {{name: {each}, device: rpi-3b}}" for each in ("pi_1", "living room"))
    (tmp_path / "home.yaml").write_text(f"name: home\ntitle: Home\nboards:\n{boards}\n")
    said = nonn_plan(*changed("--fleet", tmp_path / "home.yaml"))
    assert said.code == 2
    assert "home.yaml" in said.err
    assert "no certificate can hold this name of a board; found 'pi_1'" in said.err
    assert not (tmp_path / "plan.json").exists()


def test_an_old_plan_with_such_a_board_says_so_and_goes_on_when_it_is_renamed(nonn_plan, plan_file):
    plan = plan_file.read_text()
    plan_file.write_text(plan.replace("rpi-3b-1", "pi_1"))
    said = nonn_plan("simulate", plan_file)
    assert said.code == 2
    assert "question.fleet.boards.0.name: no certificate can hold this name" in said.err
    assert "rename it everywhere in the file, also in an old plan, such as pi-1" in said.err
    plan_file.write_text(plan.replace("rpi-3b-1", "pi-1"))
    assert nonn_plan("simulate", plan_file).code == 0


def test_loss_and_jitter_of_wi_fi_are_said_by_plan_and_simulation(nonn_plan, changed, tmp_path):
    asked = changed("--fleet", "rpi-zero-2w,rpi-3b@wifi-5")
    said = nonn_plan(*asked)
    assert said.code == 0, said.err
    links = (
        "wifi: 1 % of transmissions are lost and repeated after 200 ms, jitter is 1 ms on average "
        "(rpi-zero-2w-1)",
        "wifi-5: 0.5 % of transmissions are lost and repeated after 200 ms, jitter is 0.5 ms on "
        "average (rpi-3b-1)",
    )
    left_out = "predicted without loss and jitter of wifi, wifi-5: `nonn-plan simulate` shows them"
    assert all(f"{each}\n" in said.out for each in links)
    assert f"Warning: {left_out}\n" in said.out
    assert nonn_plan(*asked, "--json").document["warnings"] == [left_out]
    simulated = nonn_plan("simulate", tmp_path / "plan.json").out
    assert all(f"{each}\n" in simulated for each in links)


def test_nothing_is_said_of_links_without_loss(nonn_plan, plan_arguments, tmp_path):
    assert "transmissions" not in nonn_plan(*plan_arguments).out
    assert "transmissions" not in nonn_plan("simulate", tmp_path / "plan.json").out
    assert "warnings" not in nonn_plan(*plan_arguments, "--json").document


def test_a_measured_board_is_planned_layer_by_layer_and_its_untold_figures_are_said(
    nonn_plan, changed
):
    asked = changed("--fleet", "rk3588,orangepi-5-int8")
    said = nonn_plan(*asked)
    assert said.code == 0, said.err
    assert "layer by layer" in said.out
    assert "no power is known of orangepi-5-int8, rk3588" in said.out
    energy = nonn_plan(*asked, "--minimise", "energy")
    assert energy.code == 2
    assert "rk3588" in energy.err and "power" in energy.err


def test_a_measured_board_without_a_budget_is_told_how_to_give_one(nonn_plan, partition_file):
    said = nonn_plan(
        *("plan", partition_file, "--fleet", "rk3588*2", "--students", "2"),
        *("--teacher-network", "wrn40-4", "--image", "3x32x32", "--classes", "10"),
    )
    assert said.code == 2
    assert "no ram_bytes in device rk3588" in said.err and "--memory 500KB" in said.err
