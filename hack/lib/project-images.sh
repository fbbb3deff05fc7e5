# shellcheck shell=bash
# The project's own images from images/Dockerfile: on the published Python base
# where a registry is in reach, else on one made of Debian packages.

PYTHON_PACKAGES=python3,python3-venv,ca-certificates

project_version() { sed -nE 's/^version = "(.*)"/\1/p' "$REPO/pyproject.toml" | head -n 1; }

project_image() { printf 'neuron-sim/%s:%s\n' "$1" "$(project_version)"; }

# those that the chart and its users need
project_image_names() {
  local name
  for name in neuron-sim neuron-tools; do project_image "$name"; done
}

# base_image: makes sure that there is one, and prints its name. Once made here, it is kept to
base_image() {
  local image
  image=neuron-sim/python-base:$DEBIAN_SUITE-$(echo "$PYTHON_PACKAGES" | short_hash)
  if ! have_image "$image"; then
    if published "$PYTHON_IMAGE"; then
      say "-- base image $PYTHON_IMAGE is in reach"
      image=$PYTHON_IMAGE
      have_image "$image" || step "docker pull $image" docker pull -q "$image"
    else
      say "-- base image $PYTHON_IMAGE is not in reach (asked for 3 s): making one from Debian packages"
      need mmdebstrap mmdebstrap debian-archive-keyring
      step "Debian $DEBIAN_SUITE with Python" debian_tree "$image" minbase "$PYTHON_PACKAGES"
    fi
  fi
  printf '%s' "$image"
}

# wheelhouse: a folder with every wheel that the image build installs; prints its parent
wheelhouse() {
  local dir
  dir=$CACHE/wheelhouse/$(cat "$REPO/requirements.lock" "$REPO/images/build-requirements.lock" | short_hash)
  if [ ! -d "$dir" ]; then
    need_venv python3
    step "wheels for the image" download_wheels "$dir"
  fi
  printf '%s' "$dir"
}

download_wheels() {
  local new lock
  mkdir -p "$CACHE/wheelhouse"
  new=$(mktemp -d "$CACHE/wheelhouse/.new-XXXXXX")
  python3 -m venv "$new/venv"
  for lock in requirements.lock images/build-requirements.lock; do
    # for the image's Python, whichever runs here
    "$new/venv/bin/pip" download --quiet --require-hashes --only-binary :all: --python-version 3.11 \
      --dest "$new/wheelhouse" -r "$REPO/$lock"
  done
  rm -r "$new/venv"
  mv "$new" "$1"
}

# build_project_images NAME...; unchanged layers are taken from the daemon
build_project_images() {
  local base wheels name
  base=$(with_lock images base_image)
  wheels=$(with_lock images wheelhouse)
  for name in "$@"; do
    step "image $(project_image "$name")" build_project_image "$name" "$base" "$wheels"
  done
}

build_project_image() {
  tar -c --exclude=__pycache__ --exclude='*.egg-info' -C "$3" wheelhouse \
    -C "$REPO" images requirements.lock pyproject.toml README.md device_model dra_driver operator runtime cli |
    docker_build -f images/Dockerfile --build-arg "BASE=$2" --target "$1" -t "$(project_image "$1")"
}
