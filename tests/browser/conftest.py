"""The explorer's server on the reference runs, and Chromium."""

import shutil

import pytest
from explorer_pages import KEPT, LONG, MAZE, PACMAN, ROOT, SOKOBAN, Server, command, ours


@pytest.fixture(scope="session")
def home():
    """A directory whose runs/ has the reference runs, small dictionaries of two of them, and probes of a third's plan;
    made once."""
    home = KEPT / "home"
    if not (home / "probed").exists():
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(ROOT / "runs", home / "runs")
        for run, hook, samples, name in (
            (PACMAN, "fc.post", "2400", "pacman-features"),
            (MAZE, "block2.res1.sum", "200", "maze-features"),
        ):
            command("collect", run, "--hook", hook, "--samples", samples, cwd=home)
            fit = ["--latents", "256", "--k", "8", "--epochs", "2", "--batch-size", "256", "--episodes", "0"]
            command("sae", "fit", run, "--hook", hook, "--name", name, *fit, cwd=home)
        command("sokoban", "probe", SOKOBAN, "--episodes", "200", "--hooks", "layer1.c", "layer2.c", cwd=home)
        (home / "probed").touch()
    return home


@pytest.fixture(scope="session")
def server(home):
    server = Server(home)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found, "there is no Chromium; apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, server):
    """`opened(address, ...)`: the explorer in a page of its own, in which nothing may go wrong."""
    wrong, contexts = [], []

    def show(address="", width=1280, height=800, scheme="light", wait=True, refusals=False, **more):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        contexts.append(context)
        context.set_default_timeout(LONG)
        page = context.new_page()
        refused = "status of 400" if refusals else None
        page.on("console", lambda said: None if refused and refused in said.text else wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda asked: None if ours(asked.url, server.link) else wrong.append(asked.url))
        page.goto(server.link + ("#" + address if address else ""))
        if address and wait:
            page.locator("#frame[data-step]").wait_for()
        return page

    yield show
    for context in contexts:
        for page in context.pages:
            page.goto("about:blank")  # as a person leaves a page, so that it makes room for others
        context.close()
    assert not wrong
