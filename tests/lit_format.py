"""How lit finds and runs the tests of lit.cfg.py.  A module of its own, since lit's workers pickle the format."""
import pathlib
import subprocess
import sys
import tempfile

import lit.formats
import lit.Test

EXIT_SKIP = 77
TIMEOUT_S = 900
SHELL_SUFFIXES = {".zir", ".zm", ".test"}
TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent


class ZmcFormat(lit.formats.ShTest):
    def getTestsInDirectory(self, suite, path_in_suite, lit_config, local_config):
        folder = TESTS.joinpath(*path_in_suite)
        for path in sorted(folder.iterdir()):
            if path.is_file() and self.is_test(path, path_in_suite, local_config):
                yield lit.Test.Test(suite, (*path_in_suite, path.name), local_config)

    def is_test(self, path, path_in_suite, config):
        top = path_in_suite[0] if path_in_suite else ""
        if top == "lit":
            return path.suffix in SHELL_SUFFIXES and "Inputs" not in path_in_suite
        if path.suffix == ".c":
            return top in ("unit", "property")
        return path.suffix == ".py" and path.name.startswith("test_") and not config.sanitized

    def execute(self, test, lit_config):
        path = pathlib.Path(test.getSourcePath())
        if path.suffix == ".c":
            return self.run_program([str(pathlib.Path(test.config.build) / f"test_{path.stem}")], test.config)
        if path.suffix == ".py":
            return self.run_program([sys.executable, str(path)], test.config)
        return super().execute(test, lit_config)

    def run_program(self, command, config):
        # Of two mpirun at once one may remove the folder of sessions in which the other makes its own.
        with tempfile.TemporaryDirectory(prefix="zmc-mpi-", ignore_cleanup_errors=True) as sessions:
            return self.run_with(command, {**config.environment, "OMPI_MCA_orte_tmpdir_base": sessions})

    def run_with(self, command, environment):
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except FileNotFoundError:
            return lit.Test.FAIL, f"{command[0]} was not built"
        except subprocess.TimeoutExpired:
            return lit.Test.TIMEOUT, f"{command[-1]} ran longer than {TIMEOUT_S} s"
        text = done.stdout.decode(errors="replace")
        if done.returncode == EXIT_SKIP:
            return lit.Test.UNSUPPORTED, text
        return (lit.Test.PASS if done.returncode == 0 else lit.Test.FAIL), f"exit status {done.returncode}\n{text}"
