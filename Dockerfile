# The pipeline with all it needs, for clusters whose nodes have no Python 3.11 or compiler:
#
#   docker build --build-arg COMMIT="$(git describe --always --dirty --abbrev=40 --exclude='*')" -t skimrnn .
#   docker run --rm -v "$PWD:/work" skimrnn snakemake --cores 8
#
# The package is compiled here, for any x86-64 or ARM processor: its kernels choose their instructions when they run.
FROM python:3.11-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends rsync && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/skimrnn
COPY requirements.lock ./
RUN pip install --no-cache-dir -r requirements.lock
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY skimrnn skimrnn
# A checkout in the working directory holds the package, too, not compiled: `python -m` must not take that one.
ENV PYTHONSAFEPATH=1
# The installation succeeds without kernels, too; an image without them is of no use.
RUN pip install --no-cache-dir --no-build-isolation --constraint requirements.lock '.[cluster,kubernetes]' \
    && python -c 'import skimrnn.kernels.cpu'
# What profiles/kubernetes has each pod install.
RUN pip freeze | grep '^snakemake-storage-plugin-' | xargs pip download --no-cache-dir --no-deps --dest /opt/wheels
# Records name it.
ARG COMMIT
ENV SKIMRNN_COMMIT=$COMMIT
# Whoever runs it may have no home folder: Snakemake's files and Triton's.
ENV XDG_CACHE_HOME=/tmp TRITON_HOME=/tmp
WORKDIR /work
