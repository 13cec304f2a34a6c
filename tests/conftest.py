"""The option `--exhaustive` of pytest: without it, tests that are marked exhaustive are skipped."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="run the exhaustive tests too")


def pytest_configure(config):
    config.addinivalue_line("markers", "exhaustive: takes long; runs with --exhaustive only")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--exhaustive"):
        return
    for item in items:
        if "exhaustive" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="exhaustive: make test-all"))
