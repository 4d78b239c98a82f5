"""Functions whose result can't be repeated, by their names, and what each of them is.

Names are those of the real objects, so that `from time import time as t` is known as well. A name that
ends in a dot stands for all that is below it.
"""

from __future__ import annotations

from .rules import CHANCE, CLOCK, CONCURRENCY, ENVIRONMENT, IDENTITY, IO, Rule


def _of(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in names.split()]


_CLOCK = [
    *_of("time", "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time thread_time"),
    *_of(
        "time", "clock_gettime clock_gettime_ns process_time_ns thread_time_ns localtime gmtime ctime asctime"
    ),
    *_of("datetime.datetime", "now utcnow today"),
    *_of("datetime.date", "today"),
    *_of("pendulum", "now today tomorrow yesterday"),
    *_of("arrow", "now utcnow"),
    *_of("arrow.api", "now utcnow"),
    "django.utils.timezone.now",
    "pandas.Timestamp.now",
]

ONLY_BARE = frozenset(
    {
        "time.localtime",
        "time.gmtime",
        "time.ctime",
        "time.asctime",
        "random.Random",
        "numpy.random.default_rng",
    }
)
"""With an argument they are as good as any other function."""

_CHANCE = [
    *_of("uuid", "uuid1 uuid4 uuid6 uuid7 getnode"),
    "random.Random",
    "random.Random.",
    "random.SystemRandom",
    "random.SystemRandom.",
    "_random.Random.",
    "secrets.",
    "os.urandom",
    "posix.urandom",
    "posix.getrandom",
    "numpy.random.",
    "faker.",
]

_ENVIRONMENT = [
    *_of("os", "getenv getenvb getpid getcwd uname cpu_count getlogin getloadavg"),
    *_of("posix", "getpid getppid getcwd uname cpu_count getlogin getloadavg getuid"),
    *_of("socket", "gethostname getfqdn"),
    "_socket.gethostname",
    "platform.",
    "getpass.",
    "locale.getlocale",
]

_PATH = (
    "absolute chmod cwd exists expanduser glob hardlink_to home is_dir is_file is_mount is_symlink iterdir "
    "lchmod lstat mkdir open owner read_bytes read_text readlink rename replace resolve rglob rmdir samefile "
    "stat symlink_to touch unlink walk write_bytes write_text"
)

_IO = [
    *_of("builtins", "open input breakpoint"),
    *_of("io", "open open_code FileIO"),
    *_of("_io", "open open_code FileIO"),
    *_of("os", "fdopen makedirs popen removedirs renames walk fwalk get_exec_path"),
    *_of(
        "posix", "open read write listdir scandir stat lstat access chmod chown remove unlink rename replace"
    ),
    *_of("posix", "mkdir rmdir link symlink readlink system fork kill truncate utime statvfs"),
    *_of("genericpath", "exists isfile isdir getsize getmtime getatime getctime lexists"),
    *_of("posixpath", "exists isfile isdir islink ismount realpath lexists"),
    *_of("pathlib.Path", _PATH),
    *_of("pathlib._local.Path", _PATH),
    *_of("kasaga.client.client.Client", "start run handle describe cancel retry skip resolve"),
    "kasaga.client.blocking.BlockingClient.",
    *_of("urllib.request", "urlopen urlretrieve"),
    *_of("httpx", "get post put patch delete head options request stream Client AsyncClient"),
    *_of("sqlalchemy", "create_engine"),
    *_of("psycopg", "connect Connection.connect AsyncConnection.connect"),
    "httpx.Client.",
    "httpx.AsyncClient.",
    "requests.api.",
    "requests.sessions.Session",
    "requests.sessions.Session.",
    "requests.sessions.session",
    "psycopg.Connection.",
    "psycopg.AsyncConnection.",
    "psycopg.Cursor.",
    "psycopg.AsyncCursor.",
    "psycopg_pool.",
    "psycopg2.connect",
    "psycopg2.extensions.",
    "sqlalchemy.engine.",
    "sqlalchemy.orm.session.",
    "sqlalchemy.ext.asyncio.",
    "aiohttp.",
    "aiokafka.",
    "asyncpg.",
    "boto3.",
    "botocore.client.",
    "confluent_kafka.",
    "ftplib.",
    "glob.",
    "grpc.",
    "http.client.",
    "kafka.",
    "pika.",
    "pymongo.",
    "redis.",
    "select.",
    "shutil.",
    "smtplib.",
    "socket.",
    "_socket.",
    "sqlite3.",
    "ssl.",
    "subprocess.",
    "tempfile.",
    "urllib3.",
]

_CONCURRENCY = [
    "time.sleep",
    "_asyncio.",
    "_queue.",
    "_thread.",
    "anyio.",
    "asyncio.",
    "concurrent.futures.",
    "gevent.",
    "multiprocessing.",
    "queue.",
    "sched.",
    "threading.",
    "trio.",
]

_IDENTITY = ["builtins.id", "builtins.hash"]

_PURE = [
    *_of("asyncio.coroutines", "iscoroutine iscoroutinefunction"),
    *_of("socket", "inet_aton inet_ntoa inet_pton inet_ntop htonl htons ntohl ntohs"),
    *_of("_socket", "inet_aton inet_ntoa inet_pton inet_ntop htonl htons ntohl ntohs"),
    "glob.escape",
    "sqlite3.complete_statement",
    "sqlalchemy.engine.url.",
]
"""They would be taken for impure by what is above them."""

_KINDS: dict[str, Rule] = {
    name: rule
    for names, rule in (
        (_CLOCK, CLOCK),
        (_CHANCE, CHANCE),
        (_IO, IO),
        (_ENVIRONMENT, ENVIRONMENT),
        (_CONCURRENCY, CONCURRENCY),
        (_IDENTITY, IDENTITY),
    )
    for name in names
}
_EXACT = {name: rule for name, rule in _KINDS.items() if not name.endswith(".")}
_BELOW = {name: rule for name, rule in _KINDS.items() if name.endswith(".")}
_PURE_EXACT = frozenset(name for name in _PURE if not name.endswith("."))
_PURE_BELOW = tuple(name for name in _PURE if name.endswith("."))


def rule_of(name: str) -> Rule | None:
    """What is wrong with calling this function in a saga; None: nothing that is known."""
    if name in _PURE_EXACT or name.startswith(_PURE_BELOW):
        return None
    if name in _EXACT:
        return _EXACT[name]
    at = name.find(".")
    while at != -1:
        found = _BELOW.get(name[: at + 1])
        if found is not None and len(name) > at + 1:
            return found
        at = name.find(".", at + 1)
    return None
