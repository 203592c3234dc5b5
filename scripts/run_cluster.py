#!/usr/bin/env python3
"""A cluster on this machine, each replica with memory for a part of one archive; and what may happen to a replica.

    scripts/cluster 3                  starts three: http://127.0.0.1:8000 is the proxy in front of them
    scripts/cluster kill 2             kill -9; then `scripts/cluster start 2`
    scripts/cluster slow 1 500         what others send it comes 500 ms later (needs --relays); then `heal 1`
    scripts/cluster 3 --image TAG      the replicas are containers, in this machine's network

The proxy is haproxy, where it is installed: it asks ready replicas in turn, and another one once where a connection
fails; a search, which changes nothing, also where it breaks before its answer. Prometheus, where it is installed, has
the chart's rules and the labels that its dashboards ask for. All listen on loopback and are stopped by Ctrl-C.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from medsearch_py.replicas import (
    HOST,
    REPLICAS_MAX,
    Description,
    Ports,
    Replicas,
    engine,
    is_ready,
    name_of,
    url_of,
    wait_gone,
    wait_ready,
    weather_file,
)

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".local/cluster"
PROGRAM = ROOT / "target/release/medsearch"
PORT_MAX = 65000
# What the chart's release is called: rules and dashboards ask by it.
RELEASE = "medsearch"
LOOK_EVERY_S = 1.0
ENDED_MAX_S = 10.0

# As the chart has it: a readiness probe every 2 s, of which two fail; 30 s for a request, and 5 s more at the proxy.
PROXY = """\
global
    maxconn 1024
    # A search is kept whole until it is answered, so that it can be asked again: what fits here.
    tune.bufsize 262144

defaults
    mode http
    balance roundrobin
    timeout connect 2s
    timeout client 40s
    timeout server 35s
    timeout http-request 40s
    timeout check 3s
    retries 1
    option redispatch 1
    option httpchk GET /readyz
    http-check send hdr Host {host}
    http-check expect status 200
    default-server check inter 2s fall 2 rise 1

frontend cluster
    bind {host}:{port}
    # As a replica without a key does for itself: no page of another site, and no name that was rebound to this address.
    acl ours req.hdr(host) -i {host}:{port} localhost:{port}
    acl from_page req.hdr(origin) -m found
    acl from_our_page req.hdr(origin) -i http://{host}:{port} http://localhost:{port}
    http-request deny unless ours
    http-request deny if from_page !from_our_page
    http-request del-header Origin
    http-request set-header Host {host}
    use_backend searches if {{ path_beg /v1/search }}
    default_backend others

frontend proxy_metrics
    bind {host}:{metrics_port}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request deny

backend searches
    option http-buffer-request
    retry-on conn-failure empty-response
{servers}
backend others
    retry-on conn-failure
{servers}"""


class RefusedError(Exception):
    """What is asked can't be done; says what to do."""


def say(text: str) -> None:
    print(text, flush=True)


class Run:
    """One cluster, from its start to its end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.place = args, args.place
        self.ports = Ports(args.port)
        self.beside: dict[str, subprocess.Popen[bytes]] = {}

    def prepare(self) -> None:
        """Writes down what is to be run."""
        args = self.args
        before = None
        # Of an earlier program it may be in another form.
        with contextlib.suppress(FileNotFoundError, TypeError, ValueError):
            before = Description.read(self.place)
        if before:
            running = before.replicas(self.place)
            if any(running.lives(number) for number in range(len(before.arguments))):
                raise RefusedError(
                    f"a cluster runs in {self.place} already: end it, or name another folder with --place"
                )
        self.place.mkdir(parents=True, exist_ok=True)
        self.place.chmod(0o700)
        # One credential for the replicas, new in each run; whoever asks on loopback needs none.
        key = self.place / "inner.key"
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        self.haproxy = found("haproxy")
        self.prometheus = found("prometheus")
        self.description = Description(
            first_port=args.port,
            program=args.image or str(args.program),
            engine=args.engine,
            mounts=self.mounts(key) if args.image else [],
            relays=args.relays,
            proxy=self.haproxy is not None,
            prometheus=self.prometheus is not None,
            arguments=[self.arguments(number, key) for number in range(args.replicas)],
        )
        self.description.write(self.place)
        self.replicas: Replicas = self.description.replicas(self.place)
        for number in range(args.replicas):
            self.replicas.log(number).unlink(missing_ok=True)
            weather_file(self.place, number).unlink(missing_ok=True)

    def mounts(self, key: Path) -> list[str]:
        """What a container sees of this machine: the archive, its secret, a model, the replicas' key."""
        args = self.args
        read = {str(path) for path in (args.secret_file, args.model, key) if path and Path(path).exists()}
        return [args.archive, *sorted(read)]

    def arguments(self, number: int, key: Path) -> list[str]:
        """The command line of a replica."""
        args, ports = self.args, self.ports
        relayed = {other: args.relays and other != number for other in range(args.replicas)}
        peers = [ports.inner_relay(number, at) if relayed[at] else ports.inner(at) for at in range(args.replicas)]
        words = ["serve", "--archive", args.archive, "--listen", f"{HOST}:{ports.public(number)}"]
        words += ["--peers", ",".join(map(url_of, peers)), "--inner-listen", f"{HOST}:{ports.inner(number)}"]
        words += ["--inner-key-file", str(key), "--replica", name_of(number)]
        words += ["--drain-seconds", str(args.drain_seconds)]
        for option in ("secret_file", "model", "index_bytes_max", "replication_factor", "sample_share"):
            if (value := getattr(args, option)) is not None:
                words += [f"--{option.replace('_', '-')}", str(value)]
        return words

    def start(self) -> None:
        """Starts everything and says where it is."""
        count, ports = self.args.replicas, self.ports
        if self.args.relays:
            relays = ["--place", str(self.place), "--replicas", str(count), "--port", str(ports.first)]
            self.start_beside("relays", [sys.executable, str(ROOT / "scripts/relays.py"), *relays])
        for number in range(count):
            self.replicas.start(number, self.description.program, self.description.arguments[number])
        for number in range(count):
            wait_ready(self.replicas, number, ports.public(number))
            say(f"replica {number}: {url_of(ports.public(number))}, log {self.replicas.log(number)}")
        if self.haproxy:
            self.start_proxy(self.haproxy)
        else:
            say("haproxy is not installed here (on Debian: apt-get install haproxy): there is no proxy")
        if self.prometheus:
            self.start_prometheus(self.prometheus)
        else:
            say("Prometheus is not installed here (on Debian: apt-get install prometheus): none is started")
        if self.args.load:
            urls = [ports.proxy] if self.haproxy else [ports.public(number) for number in range(count)]
            words = [word for port in urls for word in ("--url", url_of(port))]
            words += ["--searches-per-s", str(self.args.load), "--ingests-per-s", str(self.args.ingests)]
            self.start_beside("load", [sys.executable, str(ROOT / "scripts/run_load.py"), *words], quiet=False)

    def start_proxy(self, program: str) -> None:
        """haproxy, before the relays where there are any."""
        ports, lines = self.ports, ""
        for number in range(self.args.replicas):
            port = ports.public_relay(number) if self.args.relays else ports.public(number)
            lines += f"    server {name_of(number)} {HOST}:{port}\n"
        config = self.place / "haproxy.cfg"
        values = {"host": HOST, "port": ports.proxy, "metrics_port": ports.proxy_metrics, "servers": lines}
        config.write_text(PROXY.format_map(values))
        self.start_beside("proxy", [program, "-f", str(config)])
        self.wait_for("proxy", url_of(ports.proxy))
        say(f"proxy: {url_of(ports.proxy)}")

    def start_prometheus(self, program: str) -> None:
        """Prometheus, with what a ServiceMonitor would say of each replica."""
        ports, every = self.ports, f"{self.args.scrape_seconds}s"

        def replica(number: int) -> dict:
            labels = {"namespace": RELEASE, "service": RELEASE, "endpoint": "http", "container": RELEASE}
            return {"targets": [f"{HOST}:{ports.public(number)}"], "labels": labels | {"pod": name_of(number)}}

        jobs = [{"job_name": RELEASE, "static_configs": [replica(number) for number in range(self.args.replicas)]}]
        if self.haproxy:
            jobs.append({"job_name": "proxy", "static_configs": [{"targets": [f"{HOST}:{ports.proxy_metrics}"]}]})
        config = {"global": {"scrape_interval": every, "evaluation_interval": every}, "scrape_configs": jobs}
        if rules := self.rules(every):
            config["rule_files"] = [str(rules)]
        # JSON is YAML.
        file = self.place / "prometheus.yml"
        file.write_text(json.dumps(config, indent=1))
        data = self.place / "prometheus"
        shutil.rmtree(data, ignore_errors=True)
        words = [f"--config.file={file}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=1d"]
        self.start_beside("prometheus", [program, *words, f"--web.listen-address={HOST}:{ports.prometheus}"])
        say(f"Prometheus: {url_of(ports.prometheus)}")

    def rules(self, every: str) -> Path | None:
        """The chart's rules in a file, each group evaluated that often; none where there is no Helm to render them."""
        helm = subprocess.run([str(ROOT / "scripts/lib/helm")], capture_output=True, text=True, check=False)
        file = self.place / "rules.json"
        made = None
        if helm.returncode == 0:
            made = subprocess.run(
                [sys.executable, str(ROOT / "tests/chart/expressions.py"), "--rules-out", str(file)],
                env=os.environ | {"MEDSEARCH_HELM": helm.stdout.strip()},
                capture_output=True,
                text=True,
                check=False,
            )
        if made is None or made.returncode != 0:
            said = (made or helm).stderr.strip().splitlines()[-1:]
            say(f"Prometheus has no rules: {''.join(said) or 'they could not be rendered'}")
            return None
        groups = json.loads(file.read_text())["groups"]
        file.write_text(json.dumps({"groups": [group | {"interval": every} for group in groups]}, indent=1))
        return file

    def start_beside(self, name: str, command: list[str], quiet: bool = True) -> None:
        """Starts a program that belongs to the cluster; with a log, or on the terminal."""
        with (self.place / f"{name}.log").open("wb") as log:
            out = log if quiet else None
            self.beside[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def wait_for(self, name: str, url: str) -> None:
        """Until that program answers for a replica."""
        for _ in range(100):
            if is_ready(url):
                return
            if self.beside[name].poll() is not None:
                break
            time.sleep(0.1)
        raise RefusedError(f"{name} did not start: see {self.place / name}.log")

    def watch(self) -> None:
        """Says when something ends, until it is interrupted."""
        there = set(range(self.args.replicas))
        while True:
            time.sleep(LOOK_EVERY_S)
            lives = {number for number in range(self.args.replicas) if self.replicas.lives(number)}
            for number in sorted(there - lives):
                say(f"replica {number} is gone: scripts/cluster start {number} starts it again")
            there = lives
            for name in [name for name, process in self.beside.items() if process.poll() is not None]:
                say(f"{name} has ended: see {self.place / name}.log")
                del self.beside[name]

    def stop(self) -> None:
        """Ends everything. Replicas do not drain: nobody comes after them."""
        for process in self.beside.values():
            process.terminate()
        numbers = range(self.args.replicas)
        for number in numbers:
            self.replicas.signal(number, signal.SIGCONT)
            self.replicas.signal(number, signal.SIGINT)
        for number in numbers:
            wait_gone(self.replicas, number)
            self.replicas.forget(number)
        for process in self.beside.values():
            try:
                process.wait(ENDED_MAX_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def found(program: str) -> str | None:
    """Where a program is; Debian keeps servers where not everyone looks."""
    return shutil.which(
        program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    )


def start(args: argparse.Namespace) -> None:
    """Runs a cluster until it is told to stop."""
    args.engine = engine() if args.image else None
    if args.image and not args.engine:
        raise RefusedError("neither podman nor docker answers here: without --image replicas are processes")
    if not args.image and not os.access(args.program, os.X_OK):
        raise RefusedError("the program is not built yet: run scripts/setup")
    args.archive = args.archive or demo_archive()
    if args.image:
        if "://" in args.archive:
            raise RefusedError("with --image the archive is a folder")
        # What a container sees has the same name there.
        secret = args.secret_file or Path(f"{args.archive}.secret")
        args.secret_file = secret.resolve() if secret.exists() else None
        args.archive, args.place = str(Path(args.archive).resolve()), args.place.resolve()
        args.model = args.model and (str(Path(args.model).resolve()) if Path(args.model).exists() else args.model)
    run = Run(args)
    run.prepare()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run.start()
        say("ready; Ctrl-C stops all. For research use only, not for diagnosis.")
        run.watch()
    except KeyboardInterrupt:
        pass
    finally:
        # Every wait of the end has a bound.
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, signal.SIG_IGN)
        run.stop()


def demo_archive() -> str:
    """The archive of scripts/demo."""
    for folder in sorted((ROOT / ".local/demo").glob("*/*/archive")):
        return str(folder)
    raise RefusedError("there is no archive yet: run scripts/demo --no-serve, or name one with --archive")


def act(args: argparse.Namespace) -> None:
    """Does something to a replica of a running cluster, and returns when it is done."""
    place, number = args.place, args.replica
    try:
        cluster = Description.read(place)
    except FileNotFoundError:
        raise RefusedError(f"no cluster runs in {place}") from None
    if number >= len(cluster.arguments):
        raise RefusedError(f"there are replicas 0 to {len(cluster.arguments) - 1}")
    if args.action in ("cut", "slow", "heal"):
        if not cluster.relays:
            raise RefusedError(f"{args.action} needs relays: start the cluster with --relays")
        weather(place, number, args.action, args.milliseconds)
        return
    replicas = cluster.replicas(place)
    if args.action == "start":
        if replicas.lives(number):
            raise RefusedError(f"replica {number} runs already")
        replicas.start(number, args.program or cluster.program, cluster.arguments[number])
        seconds = wait_ready(replicas, number, cluster.ports.public(number))
        say(f"replica {number} is ready after {seconds:.1f} s")
        return
    which = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
    if not replicas.signal(number, which[args.action]):
        raise RefusedError(f"replica {number} does not run")
    if args.action in ("kill", "stop") and not wait_gone(replicas, number):
        raise RefusedError(f"replica {number} does not end")


def weather(place: Path, number: int, action: str, milliseconds: float) -> None:
    """Tells the relays. They look twenty times a second."""
    file = weather_file(place, number)
    if action == "heal":
        file.unlink(missing_ok=True)
        return
    new = file.with_suffix(".new")
    new.write_text("cut\n" if action == "cut" else f"slow {milliseconds}\n")
    new.rename(file)


ACTIONS = {
    "kill": "kill -9",
    "stop": "SIGTERM: it drains and ends",
    "start": "starts one that is gone",
    "freeze": "SIGSTOP: it is there and does nothing",
    "thaw": "SIGCONT",
    "cut": "nothing passes between it and the others, nor the proxy (needs --relays)",
    "slow": "what others send it comes MILLISECONDS later (needs --relays)",
    "heal": "ends cut and slow",
}


def arguments(words: list[str]) -> argparse.Namespace:
    """A start, or an action."""
    parser = argparse.ArgumentParser(
        prog="scripts/cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of logs, process ids and settings")
    if words and words[0] in ACTIONS:
        parser.add_argument("action", choices=ACTIONS)
        parser.add_argument("replica", type=whole(0, REPLICAS_MAX - 1))
        parser.add_argument("milliseconds", type=whole(0, 60_000), nargs="?", default=500)
        parser.add_argument("--program", help="start: another medsearch than the others', or image")
        return parser.parse_args(words)
    actions = "\n".join(f"  {name:7} {what}" for name, what in ACTIONS.items())
    parser.epilog = f"scripts/cluster ACTION REPLICA [--place PLACE]; replicas count from 0:\n{actions}"
    parser.add_argument("replicas", type=whole(1, REPLICAS_MAX), help=f"how many, 1 to {REPLICAS_MAX}")
    parser.add_argument("--archive", help="folder or URL (the demo's); one of one shard is held whole by every replica")
    parser.add_argument("--secret-file", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--program", type=Path, default=PROGRAM, help="the medsearch to run")
    parser.add_argument(
        "--image", metavar="TAG", help="replicas are containers of it (podman or docker), made by scripts/image"
    )
    port_help = (
        "the proxy; replicas at the next ones, Prometheus at PORT+90, replicas among each other at PORT+101… (8000)"
    )
    parser.add_argument("--port", type=whole(1, PORT_MAX), default=8000, help=port_help)
    parser.add_argument("--index-bytes-max", type=whole(1), help="memory of a replica for vectors and graphs")
    parser.add_argument("--replication-factor", type=whole(1))
    parser.add_argument("--drain-seconds", type=whole(0, 300), default=5, help="after `stop` (5)")
    parser.add_argument("--sample-share", type=float, help="of searches, asked again by exact search")
    parser.add_argument("--relays", action="store_true", help="between replicas, and before each: for cut and slow")
    parser.add_argument(
        "--load", type=float, metavar="N", help="searches a second, by schedule; what they take is printed"
    )
    parser.add_argument(
        "--ingests", type=float, default=0.0, metavar="N", help="with --load: images handed in a second"
    )
    parser.add_argument("--scrape-seconds", type=whole(1, 3600), default=5, help="of Prometheus (5)")
    return parser.parse_args(words)


def whole(least: int, most: int | None = None):
    """A whole number in these bounds."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least or (most is not None and int(text) > most):
            bounds = f"from {least} on" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is no whole number {bounds}")
        return int(text)

    return read


def main() -> int:
    args = arguments(sys.argv[1:])
    try:
        if hasattr(args, "action"):
            act(args)
        else:
            start(args)
    except (RefusedError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
