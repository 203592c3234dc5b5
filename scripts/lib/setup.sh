# shellcheck shell=bash
# The steps from a clean clone to a built program. Sourced after common.sh; scripts/setup and scripts/demo run them.

TORCH=$(sed -n 's/^torch==//p' requirements-torch.txt)
RUST=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# PyTorch's own index of CPU builds: a tenth of the size of the wheel on PyPI, which comes with CUDA.
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

setup_steps() { # [no-build]
    step_add check_tools "check what is needed"
    step_add python_torch "Python environment in .venv with PyTorch $TORCH" \
        "fetches 0.2 GB, or 3 GB where only PyPI is reached; 1 to 5 minutes"
    step_add python_packages "Python packages in .venv" "fetches about 90 MB, 1 minute"
    if [ -z "${LIBTORCH:-}" ]; then
        step_add link_libtorch "libtorch in .libtorch: links to the CPU part of PyTorch"
    else
        step_add use_libtorch "libtorch as LIBTORCH says: $LIBTORCH"
    fi
    if [ "${1:-}" = no-build ]; then
        return
    elif [ -x "$MEDSEARCH" ]; then
        step_add build_medsearch "build medsearch" "seconds, or a minute where the code has changed"
    else
        step_add build_medsearch "build medsearch" "fetches 60 MB of crates; 6 to 10 minutes on 2 cores"
    fi
}

check_tools() {
    case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-aarch64) ;;
    *) fail "this runs on Linux x86_64 and aarch64, not on $(uname -s) $(uname -m)" ;;
    esac
    have cargo || fail "cargo is missing: install Rust $RUST or newer from https://rustup.rs"
    local found python
    found=$(cargo --version 2>&1) || fail "cargo does not run here: $(head -n 1 <<<"$found")"
    found=$(cut -d' ' -f2 <<<"$found" | cut -d- -f1)
    printf '%s\n%s\n' "$RUST" "$found" | sort -VC ||
        fail "Rust $RUST or newer is needed and cargo is $found: install it from https://rustup.rs"
    have c++ || fail "a C++ compiler is missing: on Debian, sudo apt-get install g++"
    have readelf || fail "readelf is missing: on Debian, sudo apt-get install binutils"
    python=$(find_python)
    if [ ! -x "$MEDSEARCH" ]; then
        (($(free_gb) >= 5)) || fail "only $(free_gb) GB are free here, and 5 GB are needed (10 GB where PyTorch comes from PyPI)"
    fi
    say "        cargo $found, $("$python" --version)"
}

# Prints the interpreter to use: that of .venv if there is one, else 3.11, 3.12 or 3.13 with venv and pip to put into it.
find_python() {
    local name seen=
    if runs_here "$PYTHON_VENV"; then
        printf '%s\n' "$PYTHON_VENV"
        return
    fi
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if ! have "$name" || ! runs_here "$name"; then continue; fi
        seen=$name
        if "$name" -c 'import venv, ensurepip' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    [ -z "$seen" ] || fail "$seen has no venv module: on Debian, sudo apt-get install python3-venv"
    fail "Python 3.11, 3.12 or 3.13 is missing: on Debian, sudo apt-get install python3 python3-venv"
}

runs_here() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

pip_install() {
    "$PYTHON_VENV" -m pip install --quiet --disable-pip-version-check --no-input "$@" ||
        fail "pip could not install $*: its message above says why (no network?)"
}

# True where PyTorch's own index answers within 3 seconds.
torch_index_answers() {
    "$PYTHON_VENV" - "$TORCH_CPU_INDEX/torch/" 2>/dev/null <<'P'
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=3)
P
}

python_torch_key() { digest requirements-torch.txt; }
python_torch_there() { "$PYTHON_VENV" -c 'import importlib.util as i; i.find_spec("torch").origin' 2>/dev/null; }
python_torch() {
    # An interpreter that was removed or updated since leaves a .venv that does not start.
    if ! runs_here "$PYTHON_VENV"; then
        local python
        python=$(find_python)
        "$python" -m venv --clear .venv
    fi
    if torch_index_answers; then
        say "        the CPU build, from PyTorch's own index"
        pip_install --index-url "$TORCH_CPU_INDEX" -r requirements-torch.txt
    else
        say "        the build on PyPI, with CUDA (PyTorch's own index does not answer)"
        pip_install -r requirements-torch.txt
    fi
}

python_packages_key() { digest requirements.txt; }
python_packages_there() { "$PYTHON_VENV" -c 'import numpy, PIL, pydicom' 2>/dev/null; }
python_packages() { pip_install -r requirements.txt; }

link_libtorch_key() { digest requirements-torch.txt; }
link_libtorch_there() { [ -e .libtorch/lib/libtorch_cpu.so ] && [ -e .libtorch/include/ATen ]; }
link_libtorch() { libtorch_into .libtorch "$("$PYTHON_VENV" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" link; }

use_libtorch() {
    [ -e "$LIBTORCH/lib/libtorch.so" ] && [ -e "$LIBTORCH/include" ] ||
        fail "LIBTORCH is $LIBTORCH, where lib/libtorch.so and include/ are expected"
}

# libtorch_into DEST SITE_PACKAGES link|copy
# What the program needs of an installed PyTorch: the headers, libtorch_cpu.so and the libraries that it names, not the
# 2 GB of CUDA libraries beside them. As libtorch.so stands a link to libtorch_cpu.so, so that nothing loads the rest.
libtorch_into() {
    local dest=$1 site=$2 how=$3 queue=(libtorch_cpu.so) name file
    local folders=("$site/torch/lib" "$site/torch.libs" "$site"/nvidia/*/lib)
    [ -e "$site/torch/lib/libtorch_cpu.so" ] || fail "PyTorch is not where it should be, in $site: remove .venv and run again"
    rm -rf "$dest"
    mkdir -p "$dest/lib"
    while ((${#queue[@]})); do
        name=${queue[0]}
        queue=("${queue[@]:1}")
        [ ! -e "$dest/lib/$name" ] || continue
        # What is in none of the folders (libc, libstdc++ …) is the system's.
        file=$(find -L "${folders[@]}" -maxdepth 1 -name "$name" -print -quit 2>/dev/null || true)
        [ -n "$file" ] || continue
        if [ "$how" = copy ]; then cp -L "$file" "$dest/lib/$name"; else ln -sr "$file" "$dest/lib/$name"; fi
        while read -r name; do queue+=("$name"); done < <(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    done
    ln -s libtorch_cpu.so "$dest/lib/libtorch.so"
    if [ "$how" = copy ]; then cp -rL "$site/torch/include" "$dest/include"; else ln -sr "$site/torch/include" "$dest/include"; fi
    # torch-sys compares it with the release that it was made for.
    sed -n "s/^__version__ = '\(.*\)'/\1/p" "$site/torch/version.py" >"$dest/build-version"
    say "        $(find "$dest/lib" -mindepth 1 ! -name libtorch.so -printf '%f ')"
}

# libtorch_alone DEST SITE_PACKAGES: copies of these, with their licences, for a machine without PyTorch.
libtorch_alone() {
    local dest=$1 site=$2 folder
    libtorch_into "$dest" "$site" copy
    # A fifth of the library is names for debuggers.
    find "$dest/lib" -type f -exec strip --strip-unneeded {} +
    mkdir -p "$dest/licenses"
    for folder in "$site"/torch-*.dist-info "$site"/nvidia_*.dist-info; do
        [ -d "$folder" ] || continue
        find "$folder" -type f \( -iname 'licen[cs]e*' -o -iname 'notice*' \) -exec sh -c 'cp "$2" "$1-$(basename "$2")"' sh \
            "$dest/licenses/$(basename "$folder" .dist-info)" {} \;
    done
}

build_medsearch() {
    # The release profile is the only one used here, so that dependencies compile once.
    cargo build --release --locked || fail "cargo could not build medsearch: its message above says why"
}
