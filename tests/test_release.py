"""What makes a release: the flags of the libraries, and a platform's wheel from the common one."""

import base64
import hashlib
import subprocess
import tomllib
import zipfile

from release import check, libraries, wheels


def test_libraries_are_compiled_as_an_installation_compiles_them():
    command = libraries.compiler("x86_64-linux-gnu.2.17")
    assert "-ffp-contract=off" in command
    assert set(libraries.extension()["extra-compile-args"]) <= set(command)
    assert len({platform.tag for platform in libraries.PLATFORMS}) == len(libraries.PLATFORMS) == 5


def test_the_common_wheel_is_built_without_the_extension():
    text = (libraries.ROOT / "pyproject.toml").read_text("utf-8")
    without, count = wheels._EXTENSION.subn("", text)
    assert count == 1
    before, after = tomllib.loads(text), tomllib.loads(without)
    del before["tool"]["setuptools"]["ext-modules"]
    assert after == before


def test_a_platforms_wheel_has_its_library_its_tags_and_their_checksums(tmp_path):
    common, library = tmp_path / "sbert_mini-0.1.0-py3-none-any.whl", tmp_path / "_encoder.so"
    library.write_bytes(b"machine code")
    with zipfile.ZipFile(common, "w") as archive:
        archive.writestr("sbert_mini/__init__.py", "")
        archive.writestr(
            "sbert_mini-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("sbert_mini-0.1.0.dist-info/RECORD", "sbert_mini/__init__.py,,\n")
    platform = libraries.Platform("manylinux_2_17_x86_64.manylinux2014_x86_64", "x")
    wheel = wheels.wheel_for(platform, common, library, tmp_path / "dist")
    assert wheel.name == "sbert_mini-0.1.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    about = held["sbert_mini-0.1.0.dist-info/WHEEL"].decode().splitlines()
    tags = ["Tag: py3-none-manylinux_2_17_x86_64", "Tag: py3-none-manylinux2014_x86_64"]
    assert about == ["Wheel-Version: 1.0", "Root-Is-Purelib: false", *tags]
    assert held["sbert_mini/native/_encoder.so"] == b"machine code"
    record = [line.rsplit(",", 2) for line in held["sbert_mini-0.1.0.dist-info/RECORD"].decode().splitlines()]
    assert {name for name, _, _ in record} == set(held)
    for name, digest, size in record[:-1]:
        sha = base64.urlsafe_b64encode(hashlib.sha256(held[name]).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={sha}", len(held[name]))
    again = wheels.wheel_for(platform, common, library, tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()


def test_a_platform_that_is_unknown_is_named():
    done = subprocess.run(
        [libraries.sys.executable, "-m", "release.libraries", "amiga"],
        cwd=libraries.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("no platform is called so; there are ")


def test_a_wheel_is_compared_with_the_tree(tmp_path):
    platform = libraries.PLATFORMS[0]
    wheel = tmp_path / f"sbert_mini-{check.__version__}-py3-none-{platform.tag}.whl"
    info = f"sbert_mini-{check.__version__}.dist-info"
    files = {"sbert_mini/a.py": hashlib.sha256(b"a").hexdigest(), "sbert_mini/b.py": hashlib.sha256(b"b").hexdigest()}

    def found(**held):
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in held.items():
                archive.writestr(name, data)
        return list(check.wheel_problems(wheel, files))

    metadata = f"Metadata-Version: 2.4\nVersion: {check.__version__}\nLicense-Expression: Apache-2.0\n"
    right = {
        "sbert_mini/a.py": "a",
        "sbert_mini/b.py": "b",
        f"sbert_mini/native/{platform.file}": "code",
        f"{info}/METADATA": metadata,
        **{f"{info}/licenses/{name}": "text" for name in check.LICENSES},
    }
    assert found(**right) == []
    assert found(**{**right, "sbert_mini/a.py": "other", "x.py": ""}) == [
        "has x.py, which is not in the tree",
        "has another sbert_mini/a.py than the tree",
    ]
    for name in ("sbert_mini/b.py", f"sbert_mini/native/{platform.file}", f"{info}/licenses/NOTICE"):
        (problem,) = found(**{key: value for key, value in right.items() if key != name})
        assert problem.endswith(name.removeprefix(f"{info}/licenses/"))
    old = metadata.replace(check.__version__, "0.0.9")
    assert found(**{**right, f"{info}/METADATA": old}) == [
        f"has the version 0.0.9, where the source has {check.__version__}"
    ]
    wheel = tmp_path / "sbert_mini-1-py3-none-any.whl"
    assert found(**right) == ["is for no platform of release/libraries.py"]


def test_workflows_pin_their_actions_and_licences_are_there():
    assert [problem for problem in check.text_problems() if "pinned" in problem] == []
    assert all((libraries.ROOT / name).is_file() for name in check.LICENSES)
