"""Asking the explorer's server, as its page does."""

from starlette.testclient import TestClient

HERE = "http://127.0.0.1:8642"


def client(app, page="page0000", **headers):
    return TestClient(app, HERE, headers={"x-page": page, **headers}, follow_redirects=False)


def sentence(answer) -> str:
    found = answer.json()["error"]
    assert found.endswith(".")
    assert "Traceback" not in found
    return found
