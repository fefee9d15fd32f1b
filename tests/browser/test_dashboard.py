"The dashboard with seeds: from a chart to its samples and to a paper, in the dark; and a report on paper."

import re
import shutil
from pathlib import Path

import pytest
from hands import choose, expect, go

from cocoift.arena.store import ArenaStore
from cocoift.dashboard.samples import read_notes, read_tags


@pytest.fixture(scope="module")
def many(study):
    "Ten more runs: two seeds of one, and others, to be looked at only."
    names = ["many/seed-0", "many/seed-1", *(f"other-{k}" for k in range(8))]
    for name in names:
        shutil.copytree(study / "eval" / ("oracle" if name.startswith("many") else "collapse"), study / "eval" / name)
    yield names
    for name in ("many", *names[2:]):
        shutil.rmtree(study / "eval" / name)


def click(page, path: str):
    "On a mark of a figure, where its middle is."
    mark = page.locator(path)
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(200)  # plotly clicks what it hovers over
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_many_runs_from_a_chart_to_samples_and_to_a_paper(watched, url, study, many, tmp_path):
    page = go(watched, f"{url}?tab=dashboard&panel=results&__theme=dark")
    page.locator("#plot-levels .js-plotly-plot[data-heard]").wait_for(timeout=60_000)
    expect(page.locator("#legend li", has_text="many")).to_contain_text("2 seeds")
    assert not page.locator("#plot-levels .legendtext").count()  # the page's legend is the only one
    expect(page.locator("#figure-levels")).to_contain_text(re.compile(r"8 of \d+ shown"))
    expect(page.locator("#scoreboard")).to_contain_text("content_accuracy")
    expect(page.locator("#scoreboard").get_by_text("many", exact=True)).to_have_count(1)  # a row a model
    heading = page.locator("#scoreboard .header-table th", has_text="terse_rate")
    for press, order in ((heading.click, "ascending"), (lambda: heading.press("Enter"), "descending")):
        press()
        expect(heading).to_have_attribute("aria-sort", order)
        models = page.locator("#scoreboard [role=gridcell][aria-colindex='1']").all_inner_texts()
        assert ("many" in models[:2]) == (order == "ascending"), models
    light = "e => getComputedStyle(e).fill.match(/[0-9.]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)"
    assert page.locator("#plot-levels .ytick text").first.evaluate(light) > 500
    page.locator("#figure-levels .what summary").click()
    expect(page.locator("#figure-levels .what p").last).to_contain_text("Bad would be:")
    page.keyboard.press("Escape")
    page.locator("#figure-levels .save summary").click()
    with page.expect_download() as download:
        page.locator("#pdf-levels-88").click()
    pdf = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "levels-88mm.pdf"
    width = float(re.search(rb"/MediaBox \[0 0 ([0-9.]+) ", pdf)[1])
    assert abs(width / 72 * 25.4 - 88) < 0.5 and b"FontFile2" in pdf  # as wide as it says, its letters inside
    click(page, "#plot-standings .points path.point >> nth=-1")
    expect(page.locator("#grid .brick").first).to_be_visible()
    expect(page.locator("#under input")).to_have_value(re.compile("forced_short"))
    expect(page.locator("#filter input")).to_have_value("A terse")
    assert "panel=samples" in page.url and "run_a=" in page.url
    page.locator("#search input, #search textarea").first.fill("HOW MANY")
    page.keyboard.press("Enter")
    expect(page.locator("#grid .asked").first).to_contain_text(re.compile("how many", re.I))
    page.locator("#grid .brick").first.click()
    page.locator("#item-tag input, #item-tag textarea").first.fill("odd one")
    page.keyboard.press("Enter")
    expect(page.locator("#item-text .mark.tag")).to_have_text("odd one")
    page.locator("#all-samples").click()
    choose(page, "tag", "odd one")
    expect(page.locator("#grid .mark.tag").first).to_be_visible()
    assert list(read_tags(ArenaStore(study.parent / "app/log.jsonl").lines())) == ["odd one"]


def test_a_bar_filters_a_curve_is_logarithmic_and_runs_have_notes(watched, url, study, many):
    page = go(watched, f"{url}?tab=dashboard&panel=data&set=first-uniform")
    page.locator("#plot-lengths .js-plotly-plot[data-heard]").wait_for(timeout=60_000)
    before = page.locator("#conversation .where").inner_text()
    heights = "bars => bars.map(bar => bar.getBoundingClientRect().height)"
    bars = page.locator("#plot-lengths .bars .point path").evaluate_all(heights)
    click(page, f"#plot-lengths .bars .point path >> nth={bars.index(min(height for height in bars if height > 9))}")
    expect(page.locator("#length input")).to_have_value(re.compile("word"), timeout=15_000)
    expect(page.locator("#conversation .where")).not_to_have_text(before)
    assert "length=" in page.url
    page.get_by_role("tab", name="Training").click()
    page.locator("#log-axis input").check()
    page.wait_for_function("document.querySelector('#plot-loss .js-plotly-plot')?._fullLayout.yaxis.type === 'log'")
    page.get_by_role("tab", name="Runs").click()
    choose(page, "config-a", "collapse")
    choose(page, "config-b", "scope")
    expect(page.locator("#config")).to_contain_text("evaluation.bench")
    expect(page.locator("#config")).not_to_contain_text("evaluation.truncate")  # alike in both
    page.locator("#note-a textarea").fill("the one that leaks")
    page.locator("#keep-notes").click()
    expect(page.get_by_text("1 note kept")).to_be_visible()
    assert read_notes(ArenaStore(study.parent / "app/log.jsonl").lines()) == {"collapse": "the one that leaks"}


def test_a_report_fits_its_paper(page, tmp_path):
    import pandas as pd

    from cocoift.stats import Estimate
    from cocoift.viz.figures import paper_table, single_multi
    from cocoift.viz.report import Chart, Section, Table, write_report

    wide = pd.DataFrame({f"a column with a name {k}": [Estimate(0.84, 0.81, 0.87, 9)] * 3 for k in range(12)})
    blocks = [Chart(single_multi(paper_table()), "as published", paper_table()), Table(wide, "wide")]
    file = write_report(tmp_path / "report.html", "On paper", "lead", [Section("All", blocks)], {})
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(file.as_uri())
    page.locator(".plot .main-svg").first.wait_for()
    assert page.locator(".plot").bounding_box()["width"] > 800
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".plot .main-svg").first.bounding_box()["width"] <= 680
    page.set_viewport_size({"width": 690, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.locator("details").first.is_hidden()
    page.set_viewport_size({"width": 1440, "height": 900})
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("document.querySelector('.plot .main-svg').getBoundingClientRect().width > 800")
