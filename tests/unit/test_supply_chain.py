"""What we are made of, and what our own text must not hold: old packages, secrets, SQL out of values."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from web.app import make_app
from web.openapi import api

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = ("actors", "engine", "integrations", "web")


# Versions


def _locked(name: str) -> dict[str, str]:
    """Package -> version, of a lock file."""
    found = re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    assert len(found) > 40
    return dict(found)


def _floors() -> dict[str, Requirement]:
    lines = (ROOT / "deploy" / "requirements.floors").read_text().splitlines()
    parsed: dict[str, Requirement] = {}
    for line in lines:
        stated, _, why = line.partition("#")
        if not stated.strip():
            continue
        assert re.search(r"CVE-\d{4}-\d+|GHSA-|PYSEC-", why), f"{stated} does not say why"
        requirement = Requirement(stated)
        assert [each.operator for each in requirement.specifier] == [">="], stated
        parsed[requirement.name] = requirement
    return parsed


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_no_locked_package_is_below_its_floor(lock: str):
    locked = _locked(lock)
    floors = _floors()
    assert len(floors) > 10
    too_old = {
        name: locked[name]
        for name, floor in floors.items()
        if name in locked and not floor.specifier.contains(locked[name], prereleases=True)
    }
    assert not too_old
    unknown = floors.keys() - locked.keys()
    assert not unknown, "a floor of something that we do not use"


def test_nothing_installed_is_below_its_floor():
    for name, floor in _floors().items():
        try:
            have = version(name)
        except PackageNotFoundError:
            continue
        assert floor.specifier.contains(have, prereleases=True), f"{name} {have} is below {floor}"


def test_every_locked_package_has_hashes_and_no_address():
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert not re.search(r"https?://|--index-url|--extra-index|--find-links|git\+", text)
        parts = re.split(r"^(?=[a-z0-9][a-z0-9._-]*==)", text, flags=re.MULTILINE)[1:]
        for part in parts:
            assert "--hash=sha256:" in part, part[:60]


def test_what_runs_is_the_same_in_both_lock_files():
    """The tests test what is installed at a hospital."""
    locked, dev = _locked("requirements.lock"), _locked("requirements-dev.lock")
    assert {name: dev.get(name) for name in locked} == locked


def test_the_list_of_parts_is_valid_and_complete(tmp_path: Path):
    """`make sbom`, by the same tool and arguments."""
    recipe = re.search(r"cyclonedx-py (.*) -o build/sbom\.json (\S+)", (ROOT / "Makefile").read_text())
    assert recipe is not None
    made = tmp_path / "sbom.json"
    tool = Path(sys.executable).with_name("cyclonedx-py")
    done = subprocess.run(
        [tool, *recipe[1].split(), "--validate", "-o", made, recipe[2]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(made.read_text())
    assert document["bomFormat"] == "CycloneDX" and document["metadata"]["component"]["name"] == "xinglin"
    listed = {component["name"].lower(): component["version"] for component in document["components"]}
    assert listed == _locked("requirements.lock")
    for component in document["components"]:
        assert component["purl"].startswith("pkg:pypi/")
        hashes = [h for reference in component["externalReferences"] for h in reference.get("hashes", [])]
        assert hashes and {h["alg"] for h in hashes} == {"SHA-256"}


def test_every_direct_dependency_is_locked():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = _locked("requirements.lock")
    for stated in project["dependencies"]:
        requirement = Requirement(stated)
        name = requirement.name.lower().replace("_", "-")
        assert requirement.specifier.contains(Version(locked[name])), stated
        floor = _floors().get(name)
        if floor is not None:  # nor may an installation without the lock file begin below it
            (lowest,) = [each.version for each in requirement.specifier if each.operator == ">="]
            assert floor.specifier.contains(Version(lowest)), f"{stated} is below {floor}"


# Our own text


def _modules() -> Iterator[tuple[Path, ast.Module]]:
    for folder in PROGRAM:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT), ast.parse(file.read_text())


SQL: Final = re.compile(
    r"\s*(select|insert\s+into|update\s+[\w?.\"]+\s+(as\s+)?\w*\s*set|delete\s+from|merge\s+into|with\s+\w+\s+as"
    r"|create\s+(table|role|user|database|index|function|trigger)|alter\s+(table|role|database|system|user)"
    r"|drop\s+|truncate\s+|grant\s+|revoke\s+|copy\s+|listen\s+|notify\s+|set\s+(local|role|session))\b",
    re.IGNORECASE,
)
CONSTANT: Final = re.compile(r"_?[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)?")

# What else may stand in SQL, and why it is nothing that anybody sent. File -> expression -> reason.
ALLOWED: Final[dict[str, dict[str, str]]] = {
    "engine/audit/accesses.py": {"table": "one of two tables, a Literal"},
    "engine/backup/restore.py": dict.fromkeys(
        ("user", "quoted", "old", "name"), "names of roles and databases, quoted; DDL takes no parameters"
    ),
    "engine/database.py": {"quoted": "the database's name of the operator's own URL, quoted"},
    "engine/records/conduct.py": {"subject.value": "an enum of two words of ours"},
    "engine/records/hospital_import.py": dict.fromkeys(
        ("names", "table.name", "_arrays(columns)", "_arrays(table.columns)", "same", "keys", "changes"),
        "tables and columns of a constant list in the same file",
    ),
    "engine/records/delegations.py": {"mine": "one of two texts of the same function"},
    "engine/records/patients.py": {"lock": "a Literal, empty or a lock"},
    "engine/records/personal_export.py": {
        "section.query": "constants of the same file",
        **dict.fromkeys(("n + 1", "n + 2"), "numbers of parameters"),
    },
    "engine/records/staff.py": {"kind": "one of two tables, by a literal in the same file"},
    "engine/records/sign_ins.py": {"condition": "literals of the same function"},
    "engine/vault/rewrapping.py": dict.fromkeys(
        ("column.table", "column.column", "column.id"), "constants of engine/vault/columns.py"
    ),
    "engine/vault/erasures.py": dict.fromkeys(
        ("column.table", "column.column", "column.id", "_ALSO[entry.what]"),
        "constants of engine/vault/columns.py",
    ),
}


def _is_constant(node: ast.expr) -> bool:
    """A constant of the program, or one filled in with literals."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.IfExp):  # one text or the other
        return _is_constant(node.body) and _is_constant(node.orelse)
    if isinstance(node, ast.Call):  # CONSTANT.format(now="$2"), ", ".join(constant…), range(1, 41)
        called = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        return ast.unparse(called) == "range" or all(map(_is_constant, [called, *arguments]))
    if isinstance(node, ast.GeneratorExp | ast.ListComp):
        return all(_is_constant(part.iter) for part in node.generators)
    return isinstance(node, ast.Name | ast.Attribute) and bool(CONSTANT.fullmatch(ast.unparse(node)))


def _strings(node: ast.expr) -> str | None:
    """The fixed text of an expression that makes a string, with ? for what is filled in; None for others."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "?" for p in node.values)
    return None


def sql_out_of_values(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and expression of what is put into SQL and is no constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and SQL.match(_strings(node) or ""):
            for part in node.values:
                if isinstance(part, ast.FormattedValue) and not _is_constant(part.value):
                    yield node.lineno, ast.unparse(part.value)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            if SQL.match(_strings(node.left) or "") and not (
                _is_constant(node.right) or _strings(node.right) is not None
            ):
                yield node.lineno, ast.unparse(node.right)
        elif isinstance(node, ast.Call) and _is_format_of_sql(node.func):
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if not _is_constant(argument):
                    yield node.lineno, ast.unparse(argument)


def _is_format_of_sql(called: ast.expr) -> bool:
    return (
        isinstance(called, ast.Attribute)
        and called.attr == "format"
        and SQL.match(_strings(called.value) or "") is not None
    )


def test_sql_takes_values_as_parameters_only():
    found: dict[str, set[str]] = {}
    wrong = []
    looked_at = 0
    for file, tree in _modules():
        looked_at += 1
        for line, expression in sql_out_of_values(tree):
            found.setdefault(str(file), set()).add(expression)
            if expression not in ALLOWED.get(str(file), {}):
                wrong.append(f"{file}:{line} puts {expression} into SQL: make it a parameter")
    assert looked_at > 200
    assert not wrong, "\n".join(wrong)
    gone = {file: names.keys() - found.get(file, set()) for file, names in ALLOWED.items()}
    assert not {file: names for file, names in gone.items() if names}, "allowed, and no longer there"


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ('f"select * from t where name = {name}"', True),
        ('f"select {COLUMNS} from t where id = $1"', False),
        ("f\"select {_OVER.format(now='$2')} from t\"", False),
        ('f"select {_OVER.format(now=when)} from t"', True),
        ('"delete from t where id = " + given', True),
        ('"delete from t where id = " + " $1"', False),
        ('"update t set a = %s" % given', True),
        ('"insert into t values ({})".format(given)', True),
        ('f"select {name.upper()}"', True),
        ('f"listen {CHANNEL}"', False),
        ('f"{name} goes from {a} to {b}"', False),
    ],
)
def test_the_look_at_sql_sees_what_it_should(text: str, is_wrong: bool):
    assert bool(list(sql_out_of_values(ast.parse(text)))) is is_wrong


FORBIDDEN_CALLS: Final = {
    "eval": "code out of text",
    "exec": "code out of text",
    "pickle.loads": "code out of bytes",
    "pickle.load": "code out of bytes",
    "cloudpickle.loads": "code out of bytes",
    "ray.cloudpickle.loads": "code out of bytes",
    "marshal.loads": "code out of bytes",
    "shelve.open": "pickle",
    "yaml.unsafe_load": "code out of text",
    "yaml.full_load": "code out of text",
    "os.system": "a shell",
    "os.popen": "a shell",
    "msgpack.unpack": "no bound of what it takes",
}
FORBIDDEN_IMPORTS: Final = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "telnetlib", "ftplib"}


def test_nothing_of_ours_makes_code_out_of_what_comes_in():
    wrong = []
    for file, tree in _modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wrong += [
                    f"{file}:{node.lineno} imports {each.name}"
                    for each in node.names
                    if each.name.partition(".")[0] in FORBIDDEN_IMPORTS
                ]
            elif isinstance(node, ast.ImportFrom):
                if (node.module or "").partition(".")[0] in FORBIDDEN_IMPORTS:
                    wrong.append(f"{file}:{node.lineno} imports from {node.module}")
            elif isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in FORBIDDEN_CALLS:
                    wrong.append(f"{file}:{node.lineno} {name}: {FORBIDDEN_CALLS[name]}")
                if any(each.arg == "shell" and ast.unparse(each.value) != "False" for each in node.keywords):
                    wrong.append(f"{file}:{node.lineno} {name}: a shell")
    assert not wrong, "\n".join(wrong)


SECRETS: Final = {
    "a private key": rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----[\r\n]+[A-Za-z0-9+/=]{40}",
    "an AWS key": rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": rb"\b(ghp|gho|ghs|ghr|github_pat)_[A-Za-z0-9_]{30,}",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a signed token": rb"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{15,}",
    "a WeChat secret": rb"(?i)app_?secret[\"']?\s*[:=]\s*[\"'][0-9a-f]{32}[\"']",
    "an address with a password": rb"(?i)\b(postgres(ql)?|https?|redis|amqp)://[\w.-]+:[^@\s/\"'{}$<>\\]{6,}@",
    "a password that is set": rb"(?i)\b(password|secret|api_?key)\s*=\s*[\"'][A-Za-z0-9+/_-]{20,}[\"']",
}
# Where something that looks so is none: file -> why.
NO_SECRETS: Final[dict[str, str]] = {
    "tests/integration/test_database.py": "a made-up password, which no message may repeat",
    "tests/integration/test_import_cli.py": "a made-up password, which no message may repeat",
    "tests/integration/test_serve.py": "a made-up password, which no message may repeat",
    "tests/integration/test_rights.py": "a made-up password, which the settings may not show",
    "tests/unit/test_backup_signing.py": "AWS's own published example of a signature",
}


def _in_git() -> list[Path]:
    """What is in git, and what could be added: everything that is not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode:  # no checkout: what was delivered
        folders = (*PROGRAM, "benchmarks", "deploy", "docs", "tests")
        found = [file for folder in folders for file in (ROOT / folder).rglob("*")]
        return [file for file in (*found, *ROOT.glob("*")) if file.is_file() and file.suffix != ".pyc"]
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def secrets_in(content: bytes) -> list[str]:
    return [what for what, pattern in SECRETS.items() if re.search(pattern, content)]


def test_no_file_holds_a_secret():
    files = _in_git()
    assert len(files) > 300
    wrong = []
    for file in files:
        name = str(file.relative_to(ROOT))
        if name not in NO_SECRETS:
            wrong += [f"{name}: {what}" for what in secrets_in(file.read_bytes())]
        assert file.suffix not in (".pem", ".key", ".p12", ".pfx", ".jks", ".kdbx"), name
        assert file.name not in (".env", "id_rsa", "id_ed25519", ".netrc", ".pgpass"), name
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("-----BEGIN " + "PRIVATE KEY-----\n" + "M" * 64, "a private key"),
        ("-----BEGIN " + "RSA PRIVATE KEY-----\r\n" + "M" * 64, "a private key"),
        ("AKIA" + "Q" * 16, "an AWS key"),
        ("ghp_" + "a1" * 18, "a GitHub token"),
        (".".join(("eyJ" + "a" * 20, "eyJ" + "b" * 20, "c" * 43)), "a signed token"),
        ("postgresql://xinglin:" + "hunter22@db/x", "an address with a password"),
        ("password = '" + "Zk" * 12 + "'", "a password that is set"),
        ("appSecret: '" + "0f" * 16 + "'", "a WeChat secret"),
    ],
)
def test_the_look_for_secrets_sees_them(text: str, what: str):
    assert secrets_in(text.encode()) == [what]


def test_bandit_leaves_nothing_out_without_a_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().partition("[tool.bandit]")[2].partition("\n[")[0]
    skipped = re.findall(r'^ *"(B\d+)",(.*)$', lines, re.MULTILINE)
    assert skipped
    for code, why in skipped:
        assert len(why.partition("#")[2].strip()) > 20, code
    for file, _ in _modules():
        for line in (ROOT / file).read_text().splitlines():
            if "# nosec" in line:
                assert re.search(r"# nosec B\d+  # \w+", line), f"{file}: {line.strip()}"
    assert "bandit --quiet --recursive --configfile pyproject.toml" in (ROOT / "Makefile").read_text()


def test_every_route_is_in_the_document_or_for_machines() -> None:
    """API9: nothing is served that nobody wrote down."""
    app = make_app()
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None
    }
    documented = {
        (method.upper(), path) for path, methods in api.document["paths"].items() for method in methods
    }
    machines = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/openapi-3.0.json"}
    pages = {"/docs/start.js", "/docs/assets"}
    more = {(method, path) for method, path in served - documented if path not in machines | pages}
    assert more <= {("HEAD", path) for _, path in documented}, "served, and not documented"
    assert documented <= served
    assert {method for method, _ in served} <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
