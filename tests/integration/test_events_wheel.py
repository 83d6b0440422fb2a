"""The distribution pushfan-events, built and installed as a backend does: in an environment of its own."""

import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest

from events import DirectPush, Message
from events.testing import events_in_redis

ROOT = Path(__file__).resolve().parents[2]
INSTALLATION_SECONDS = 300

BACKEND = """
import sys
from events import Events                    # the distribution Events, which has this top-level name
from pushfan_events import DirectPush, Message, Publisher
import pushfan_events.testing
assert Events().on_change is not None
assert "site-packages" in pushfan_events.__file__
with Publisher(sys.argv[1], app="shop") as publisher:
    print(publisher.publish(DirectPush(app="shop", id="e1", users=["u7"], message=Message(title="Hi"))).id)
"""


def run(*command: str | Path) -> str:
    """Run a command to its end and return what it printed; its failure is the test's."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLATION_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the distribution Events; skip where no package index can be reached."""
    folder = tmp_path_factory.mktemp("packages")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "1", "--dest", folder, "Events"],
        capture_output=True,
        text=True,
        timeout=INSTALLATION_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"pip reaches no package index: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    """Give the wheel, built from the folder as a release would."""
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", packages, ROOT / "events")
    (wheel,) = packages.glob("pushfan_events-*.whl")
    return wheel


@pytest.fixture
def fake_redis() -> Iterator[fakeredis.TcpFakeServer]:
    """Give a fakeredis that another process can publish to."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """No top-level `events` that would overwrite another package's files, no tests, no build files."""
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.name for path in (ROOT / "events").glob("*.py")}
    installed = {name for name in names if ".dist-info/" not in name}
    assert installed == {f"pushfan_events/{name}" for name in modules | {"outbox.sql", "py.typed"}}


@pytest.mark.timeout(2 * INSTALLATION_SECONDS)
def test_wheel_publishes_from_a_clean_environment_beside_events(
    wheel: Path, packages: Path, tmp_path: Path, fake_redis: fakeredis.TcpFakeServer
) -> None:
    """A backend that already uses the distribution Events installs ours, and its event arrives."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--find-links", packages, "Events", f"{wheel}[redis]")
    url = f"redis://127.0.0.1:{fake_redis.server_address[1]}/0"
    assert run(python, "-I", "-c", BACKEND, url) == "e1\n"
    client = fakeredis.FakeRedis(server=fake_redis.fake_server)
    assert events_in_redis(client) == [
        DirectPush(app="shop", id="e1", users=["u7"], message=Message(title="Hi"))
    ]


def test_wheel_without_extras_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    """Events can be built and validated; publishing over a broker names the extra to install."""
    sys_path = f"import sys; sys.path.insert(0, {str(wheel)!r});"
    publish = "pushfan_events.Publisher('redis://127.0.0.1').publish(event)"
    code = (
        f"{sys_path}import pushfan_events;"
        "event = pushfan_events.DirectPush(app='a', users=['u'], message=pushfan_events.Message(title='t'));"
        f"\ntry: {publish}\nexcept ImportError as error: print(error)"
    )
    venv.create(tmp_path / "venv", with_pip=False)
    printed = run(tmp_path / "venv" / "bin" / "python", "-I", "-c", code)
    assert printed == "publishing over a broker needs kombu: pip install 'pushfan-events[redis]'\n"
