"""Pages in a real browser: they show what they are given, work, and run nothing that came with a run."""

import base64
import copy
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch

from rl_interp.agents.impala.agent import IMPALA
from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.report import circuit_report
from rl_interp.analysis.circuits.stored import StoredCircuit, graph_of
from rl_interp.analysis.sae.report import build
from rl_interp.analysis.sae.runs import load_autoencoder
from rl_interp.app.pages import write_page
from rl_interp.circuits.discovery.discovery import top
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.run import Run
from rl_interp.core.stats import TOO_FEW
from rl_interp.core.store import ActivationStore
from rl_interp.sae import Features

_OF_THESE_TESTS = "Canvas2D: Multiple readback operations"
"""What Chromium may advise on canvases that tests read: the pages read none."""
HOSTILE = (
    """</script><img src=x onerror="executed=1"></script><script>executed=2</script>--><svg onload='executed=3'>"""
    """&lt;b&gt;"><iframe srcdoc="<script>parent.executed=4</script>"></iframe>{{ 6*7 }}{% raw %}${executed=5}"""
    "\u2028\u2029<!--<script>"  # a comment without an end, in which a script element swallows what follows
)
PICTURES = {"screens", "clips", "boxes", "image", "where", "pictures", "map"}
"""Keys of the data under which there are pictures, which a run can't name."""


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("there is no Chromium to show pages with; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, tmp_path):
    """`opened(path)`: the page in a browser, in which nothing may go wrong: no error, no breach of its policy, no
    dialog, no request."""
    wrong, asked, paths = [], [], []
    context = chromium.new_context(viewport={"width": 1500, "height": 2000}, color_scheme="light")
    context.set_default_timeout(300_000)  # on a busy machine a page takes its time

    def show(path):
        page = context.new_page()
        paths.append(path)
        page.on("console", lambda message: message.text.startswith(_OF_THESE_TESTS) or wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri(), wait_until="load")
        return page

    yield show
    context.close()
    assert not wrong
    assert [url for url in asked if not url.startswith("data:image/")] == [path.as_uri() for path in paths]


@pytest.fixture(scope="module")
def report(home, session_mp):
    """Of a run whose files are hostile where they may be."""
    sae = home / "runs" / "hostile-sae"
    shutil.copytree(home / "runs" / "tiny-sae", sae)
    meta = json.loads((sae / "meta.json").read_text())
    (sae / "meta.json").write_text(json.dumps(meta | {"command": "made by" + HOSTILE}))
    (sae / "analyses").mkdir(exist_ok=True)
    returns = {"original": [float(i) for i in range(8)], "zero": [0.0] * 8, HOSTILE: [2.0, 4.0], "__proto__": [1.0]}
    recovered = {"return_recovered": 0.5, "return_recovered_mean": 0.25, "return_recovered_resample": None}
    intervals = {f"{name}_interval": None for name in recovered} | {"return_recovered_interval": [0.4, 0.6]}
    (sae / "analyses" / "evaluation.json").write_text(json.dumps({"returns": returns, **recovered, **intervals}))
    session_mp.chdir(home)
    return build(load_autoencoder(str(sae)), top=2, clips=3, maps=2)


@pytest.fixture(scope="module")
def comparison(report):
    """Of the report's autoencoder with itself, as `compare` would find it."""
    living = [i for i, feature in enumerate(report["features"]) if feature["density"]]
    shares = {"best_mean": 1.0, "best_mean_by_chance": 0.2, "alike": 1.0, "alike_by_chance": 0.1}
    return {
        "samples": 100, "episodes": 2, "alike": 0.7, "summary": [shares | {"living": len(living)}] * 2,
        "pairs": [[i, i, round(1 - i / 1000, 4)] for i in living],
        "best": [[[i, 1.0] for i in range(len(report["features"]))]] * 2,
        "sides": [report] * 2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def circuit(tmp_path_factory):
    """Of an untrained agent in MiniGrid: the edges of highest scores, which are random."""
    torch.manual_seed(0)
    env = MiniGridConfig("MiniGrid-Empty-5x5-v0")
    agent = IMPALA(len(env.action_names), env.observation_shape, env.categories, hidden=8, lstm=6).eval()
    loaded = Loaded(Run(tmp_path_factory.mktemp("circuit") / "agent"), 0, agent, env, "")
    graph = graph_of(loaded)
    scores = torch.rand(graph.edges)
    described = {"settings": {"method": "eap-ig", "when": None}, "result": {"faithfulness": 0.5, "edges": 300}}
    return circuit_report(loaded, StoredCircuit("c", loaded, top(graph, scores, 300), scores, {}, described), states=12)


def poisoned(value):
    """With something hostile behind every text, and as a key wherever a run can name one."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: copy.copy(each) if key in PICTURES else poisoned(each) for key, each in value.items()}


def test_a_report_is_about_the_states_in_which_actions_make_a_difference(report, home):
    store = ActivationStore(home / "runs/tiny/activations/fc.post")
    assert report["samples"] == (store.column("controllable") > 0).sum() < len(store)


def test_a_hostile_report_is_shown_as_it_is_and_runs_nothing(report, opened, tmp_path):
    data = poisoned(report)
    page = opened(write_page("report", data, tmp_path / "report.html"))
    assert_harmless(page)
    assert page.title() == report["title"] + HOSTILE
    shown = page.inner_text("main")
    for text in (report["title"], "made by", report["concepts"][0]["name"], report["concepts"][0]["meaning"]):
        assert text + HOSTILE[:100] in shown
    assert page.locator("td", has_text="__proto__").count() == 1
    assert page.locator("td", has_text=HOSTILE[:100]).first.is_visible()
    page.select_option("#kind", "all")
    for feature in range(len(data["features"])):
        page.evaluate(f"show({feature})")
    assert_harmless(page)


def test_a_hostile_comparison_is_shown_as_it_is_and_runs_nothing(comparison, opened, tmp_path):
    page = opened(write_page("comparison", poisoned(comparison), tmp_path / "comparison.html"))
    assert comparison["sides"][0]["title"] + HOSTILE[:100] in page.inner_text("main")
    for kind in ("0", "1", "pairs"):
        page.select_option("#kind", kind)
    assert_harmless(page)


def test_a_hostile_circuit_is_shown_as_it_is_and_runs_nothing(circuit, opened, tmp_path):
    page = opened(write_page("circuit", poisoned(circuit), tmp_path / "circuit.html"))
    assert circuit["run"] + HOSTILE[:100] in page.inner_text("main")
    for dot in range(0, page.locator("#drawing circle").count(), 10):
        page.evaluate(
            "dot => { const {c, u} = document.querySelectorAll('#drawing circle')[dot].dataset; show(+c, +u); }", dot
        )
    assert_harmless(page)


def test_units_of_a_circuit_can_be_clicked(circuit, opened, tmp_path):
    page = opened(write_page("circuit", circuit, tmp_path / "circuit.html"))
    assert page.locator("#drawing path").count() == len(circuit["edges"]) == 300
    column = next(i for i, node in enumerate(circuit["nodes"]) if node["node"] == "conv1.post")
    unit = circuit["nodes"][column]["units"][0]
    page.locator(f"#drawing circle[data-c='{column}'][data-u='0']").click()
    assert page.inner_text("#detail h3") == f"conv1.post {unit['unit']}"
    assert page.locator("#detail figure img").count() == len(unit["top"]) == 6
    assert page.locator("#detail figure canvas").count() == 6  # where in the view it is active
    into = [edge for edge in circuit["edges"] if edge[2:4] == [column, 0]]
    assert page.locator("#detail section").first.locator("tr").count() == 1 + min(12, len(into))


def assert_harmless(page):
    assert page.evaluate("typeof executed") == "undefined"
    assert page.locator("script").count() == 2
    assert page.locator("iframe, object, embed, [onerror], [onload], img:not([src^='data:image/'])").count() == 0


def test_no_script_style_or_request_but_the_pages_own_is_allowed(report, chromium, tmp_path):
    page = chromium.new_page()
    page.set_default_timeout(300_000)
    page.goto(write_page("report", report, tmp_path / "report.html").as_uri())
    page.evaluate(
        """() => {
            window.refused = [];
            document.addEventListener("securitypolicyviolation", e => refused.push(e.effectiveDirective));
            const add = (name, set) => document.body.append(Object.assign(document.createElement(name), set));
            add("script", {textContent: "executed = 1"});
            add("style", {textContent: "main { display: none }"});
            add("img", {src: "https://example.org/x.png"});
            add("iframe", {src: "https://example.org"});
            add("div", {innerHTML: "<img src=data:, onerror='executed = 2'>"});
            fetch("https://example.org").catch(() => {});
        }"""
    )
    page.evaluate(
        """() => new Promise(done => {
            const look = () => new Set(refused).size >= 6 ? done() : setTimeout(look, 20);
            look();
        })"""
    )
    wanted = {"script-src-elem", "style-src-elem", "img-src", "frame-src", "script-src-attr", "connect-src"}
    assert set(page.evaluate("refused")) == wanted
    assert page.evaluate("typeof executed") == "undefined"
    page.close()


def test_a_report_can_be_sorted_searched_filtered_and_clicked(report, opened, tmp_path):
    page, features = opened(write_page("report", report, tmp_path / "report.html")), report["features"]
    rows, living = page.locator("#list tr.row"), [i for i, f in enumerate(features) if f["density"]]
    numbers = lambda: [int(text) for text in page.locator("#list tr.row td:first-child").all_inner_texts()]  # noqa: E731
    assert rows.count() == len(living)
    best = [features[i]["concepts"][0]["auroc"] if features[i]["concepts"] else 0 for i in numbers()]
    assert best == sorted(best, reverse=True), "the best told concepts come first"
    page.click("#list th >> nth=0")
    assert numbers() == living
    page.click("#list th >> nth=0")
    assert numbers() == living[::-1]
    page.select_option("#kind", "all")
    assert rows.count() == len(features)
    page.fill("#search", str(living[0]))
    assert numbers() == [living[0]]
    page.click("#list tr.row")
    assert page.inner_text("#detail h3") == f"Feature {living[0]}"
    page.fill("#search", features[living[0]]["concepts"][0]["concept"].upper())
    assert living[0] in numbers()
    page.locator("#map circle[data-f]").last.dispatch_event("click")
    last = int(page.locator("#map circle[data-f]").last.get_attribute("data-f"))
    assert page.inner_text("#detail h3") == f"Feature {last}"
    filmed = next(i for i in living if str(features[i]["top"][0]["frame"]) in report["clips"])
    page.evaluate(f"show({filmed})")
    assert page.locator("#detail canvas[aria-label='clip of the game']").count() == 1
    assert page.locator("#detail canvas[aria-label='game screen']").count() == len(features[filmed]["top"])
    page.wait_for_function(
        """() => [...document.querySelectorAll('#detail canvas')].every(canvas => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size > 2;
        })"""
    )
    screen = """document.querySelector("#detail canvas[aria-label='clip of the game']").toDataURL()"""
    first = page.evaluate(screen)
    page.wait_for_function(f"first => {screen} !== first", arg=first)
    linked = next(i for i in living if features[i]["alike"])
    page.evaluate(f"show({linked})")
    page.click("#detail a >> nth=0")
    assert page.inner_text("#detail h3") == f"Feature {features[linked]['alike'][0][0]}"


def test_reports_are_used_by_keyboard(report, comparison, opened, tmp_path):
    page = opened(write_page("report", report, tmp_path / "report.html"))
    page.locator("#list th button").first.press("Enter")
    assert page.locator("#list th[aria-sort=ascending]").inner_text() == "# ↑"
    assert page.evaluate("document.activeElement.innerText") == "# ↑"
    row = page.locator("#list tr.row button").nth(1)
    row.press("Enter")
    assert page.inner_text("#detail h3") == f"Feature {row.inner_text()}"
    dot = page.locator("#map circle[data-f]").last
    dot.press(" ")
    assert page.inner_text("#detail h3") == f"Feature {dot.get_attribute('data-f')}"
    page = opened(write_page("comparison", comparison, tmp_path / "comparison.html"))
    page.locator("#list tr.row button").nth(1).press("Enter")
    assert page.locator("#list tr.row.chosen").get_attribute("data-i") == "1"


def test_a_report_says_where_there_is_no_interval(report, opened, tmp_path):
    shown = opened(write_page("report", report, tmp_path / "report.html")).inner_text("main")
    assert re.search(r"as trained\t3.500\t3.500\t1\.\d+ – 5\.\d+\t8", shown)
    assert "layer set to zero\t0.000\t0.000\t–\t8" in shown, "all are alike"
    assert f"–: {TOO_FEW}" in shown
    assert "__proto__\t1.000\t1.000\t–\t1" in shown
    assert "50.0% of the return above zero ablation is kept (95% interval 40.0% – 60.0%)." in shown
    assert f"25.0% of the return above mean ablation is kept ({TOO_FEW})." in shown
    assert "Ablation to resample costs no return for certain" in shown


def test_a_comparison_can_be_ordered_searched_and_clicked(comparison, opened, tmp_path):
    page = opened(write_page("comparison", comparison, tmp_path / "comparison.html"))
    rows = page.locator("#list tr.row")
    assert rows.count() == len(comparison["pairs"])
    page.select_option("#order", "up")
    told = [float(text) for text in page.locator("#list tr.row td:nth-child(3)").all_inner_texts()]
    assert told == sorted(told)
    page.select_option("#kind", "0")
    assert "There is none." in page.inner_text("#detail"), "each has its twin"
    page.select_option("#kind", "pairs")
    f, g, _ = comparison["pairs"][1]
    page.fill("#search", str(f))
    page.click("#list tr.row >> nth=0")
    assert page.locator("#detail h3").all_inner_texts() == [f"first: feature {f}", f"second: feature {g}"]


@pytest.mark.full
def test_a_report_of_a_convolution_shows_where_features_fire_and_does_without_concepts(run, place, opened, tmp_path):
    for command in (
        "collect tiny --hook conv3.post --samples 600",
        "sae fit tiny --hook conv3.post --latents 32 --k 4 --epochs 1 --episodes 0 --name conv",
    ):
        status, _, error = run(command)
        assert status == 0, error
    fitted = load_autoencoder("conv")
    data = build(fitted, top=2, clips=2, maps=1)
    assert data["concepts"] == []
    assert "no ground truth for conv3.post" in data["why_no_concepts"]
    assert (data["positions"], len(data["boxes"])) == (49, 49)
    assert data["boxes"]["24"] == pytest.approx([72, 94.5, 88, 115.5], abs=11), "the middle of the screen"
    assert data["reach"] == pytest.approx([36 / 84 * 160, 36 / 84 * 210], abs=0.1)
    features, living = Features(fitted.encoding), [i for i, f in enumerate(data["features"]) if f["density"]]
    assert living
    for i in living:
        feature, rows = data["features"][i], fitted.rows[features.rows(i)]
        shares = np.frombuffer(base64.b64decode(feature["where"]["shares"]), np.uint8)
        assert shares.argmax() in np.flatnonzero(np.bincount(rows % 49, minlength=49) == np.bincount(rows % 49).max())
        for moment in feature["top"]:
            at = rows[rows // 49 == moment["frame"] // 49] % 49
            assert [position for position, _ in moment["mask"]] == at.tolist()
            assert max(share for _, share in moment["mask"]) == 1
    page = opened(write_page("report", data, tmp_path / "report.html"))
    assert "no ground truth" in page.inner_text("main")
    assert "AUROC" not in page.inner_text("#list")
    brightest = max(living, key=lambda i: data["features"][i]["where"]["most"])
    page.evaluate(f"show({brightest})")
    page.wait_for_function(
        """() => {
            const node = document.querySelector("#detail canvas[aria-label='where it fires']");
            const {data} = node.getContext("2d").getImageData(0, 0, node.width, node.height);
            return data.some((value, i) => i % 4 === 0 && value > data[i + 2] + 120);
        }"""
    )
