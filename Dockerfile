# sdar for one NVIDIA GPU. Never built or run by us: docs/scaling.md, "A container".
#   docker build -t sdar .
#   docker run --rm --gpus all -v sdar_runs:/home/sdar/runs sdar
#   docker run --rm --gpus all -v sdar_runs:/home/sdar/runs sdar train trainer=gpu model=hf model.name=NAME
# The driver has to serve CUDA 13, as torch of constraints.txt does, which brings its own CUDA libraries.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

# Ubuntu keeps no old versions: a pinned one could not be installed some weeks later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1001 sdar \
    && install --directory --owner=1001 /home/sdar/runs /home/sdar/.cache

RUN python3 -m venv /opt/sdar
ENV PATH=/opt/sdar/bin:$PATH

WORKDIR /opt/source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt '.[lora,quant,parquet,dense]'

USER 1001
# Runs go to logs/ in here, models of the hub to /home/sdar/.cache.
WORKDIR /home/sdar/runs
ENTRYPOINT ["sdar"]
CMD ["train", "trainer=gpu"]
