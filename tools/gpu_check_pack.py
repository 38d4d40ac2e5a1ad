"""gpu_check_pack.py -- `tools/gpu-check --pack`: a build that runs where neither LLVM nor a network is, in one file."""
import os
import re
import shutil
import subprocess
import tempfile

import gpu_check_parts as parts

FOLDER = "build-gpu"  # in the file, and in a checkout
GLIBC = re.compile(r"^(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util)\.so.*)$")  # the other machine has its own
RPATH = "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags,-rpath,'$ORIGIN/lib'"  # of libraries' libraries, too


def libraries(program):
    """{name: path} of the shared libraries of a program that may be missing elsewhere."""
    out = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = dict(re.findall(r"^\s+(\S+) => (/\S+)", out, re.M))
    return {name: at for name, at in found.items() if not GLIBC.match(name)}


def pack(c, file):
    """Builds into c.args.build with a search path of its own, and packs what gpu-check runs."""
    programs, _ = parts.gpu_tests(c)
    parts.run_within(c, ["cmake", "-G", "Ninja", "-B", c.args.build, "-DCMAKE_BUILD_TYPE=Release", RPATH], "cmake")
    names = ["zmc", "zm-run", *programs]
    mpi = ["libzmc_mpi.so"] if shutil.which("mpicc") else []
    parts.run_within(c, ["ninja", "-C", c.args.build, *names, "zmrt", "gpusim_cuda", *(["zmc_mpi"] if mpi else [])], "ninja")
    with tempfile.TemporaryDirectory() as top:
        to = os.path.join(top, FOLDER)
        os.makedirs(os.path.join(to, "lib"))
        needed = {}
        for name in names:
            needed.update(libraries(os.path.join(c.args.build, name)))
            subprocess.run(["strip", "-o", os.path.join(to, name), os.path.join(c.args.build, name)], check=True)
        for name in ["libzmrt.a", *mpi]:
            shutil.copy(os.path.join(c.args.build, name), to)
        for name, at in needed.items():
            shutil.copy(os.path.realpath(at), os.path.join(to, "lib", name))
        subprocess.run(["tar", "-C", top, "-I", "xz -T0", "-cf", os.path.abspath(file), FOLDER], check=True)
    return os.path.getsize(file), sorted(needed)
