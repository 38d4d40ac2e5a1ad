"""Every test of the project as a lit test.

    tests/lit/**/*.zir, *.zm, *.test   RUN lines, with the build's tools, FileCheck and not on PATH
    tests/unit/X.c, tests/property/X.c the build's program test_X
    tests/**/test_*.py                 run by Python, with ZMC_BUILD set

A program or script passes with status 0 and is skipped with status 77; what it prints then is the reason.
Parameters: build=DIR, sanitized=1 (no scripts: they do not run what was built with sanitizers).
"""
import os
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))
from lit_format import ZmcFormat  # noqa: E402

config.name = "zmc"
config.build = os.path.abspath(lit_config.params["build"])
config.sanitized = "sanitized" in lit_config.params
config.test_format = ZmcFormat(execute_external=False)
config.test_source_root = str(TESTS)
config.test_exec_root = os.path.join(config.build, "tests")
config.excludes = ["Output", "__pycache__", "Inputs"]
config.environment.update(os.environ)
config.environment["PATH"] = os.pathsep.join([config.build, "/usr/lib/llvm-19/bin", os.environ.get("PATH", "")])
config.environment["ZMC_BUILD"] = config.build
if config.sanitized:  # what the driver's stand-in holds for a process that gave it up after a fault, as a driver does
    config.environment["LSAN_OPTIONS"] = f"suppressions={TESTS / 'gpusim' / 'leaks.supp'}:print_suppressions=0"
config.environment["ZMC_ROOT"] = str(TESTS.parent)
config.substitutions.append(("%root", str(TESTS.parent)))
config.substitutions.append(("%build", config.build))
config.substitutions.append(("%python", sys.executable))
