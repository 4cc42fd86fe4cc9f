# nnU-Net with DuPLUS in a container; docs/how-to/docker.md says how it is built and run.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG DEVICE=cpu
ARG EXTRAS=""
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/duplus
ENV PATH=/opt/duplus/bin:$PATH
# PyTorch comes before the package, so that a change of the package does not install it again. What pip chooses by itself
# has NVIDIA's libraries, which take 3.2 GB; an index of builds for CPUs leaves them out. nnU-Net bounds the version.
# hadolint ignore=DL3013
RUN case "$DEVICE" in \
        cpu | gpu) pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.6" ;; \
        *) echo "DEVICE is '$DEVICE'; expected cpu or gpu" >&2; exit 1 ;; \
    esac
COPY . /source
RUN pip install "/source${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
ARG DEVICE=cpu
# On a GPU, Triton builds kernels with a C compiler when they are first used. Its versions are those of the base image.
# hadolint ignore=DL3008
RUN if [ "$DEVICE" = gpu ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi \
    && useradd --create-home --uid 1000 duplus \
    && mkdir -p /nnUNet/raw /nnUNet/preprocessed /nnUNet/results /work \
    && chown -R duplus /nnUNet /work \
    && chmod 1777 /home/duplus /nnUNet/* /work
COPY --from=build /opt/duplus /opt/duplus
# HOME and USER also hold for the user of `docker run --user`, who has no entry in the image and writes caches there.
ENV PATH=/opt/duplus/bin:$PATH HOME=/home/duplus USER=duplus \
    nnUNet_raw=/nnUNet/raw nnUNet_preprocessed=/nnUNet/preprocessed nnUNet_results=/nnUNet/results
VOLUME ["/nnUNet/raw", "/nnUNet/preprocessed", "/nnUNet/results"]
USER 1000
WORKDIR /work
HEALTHCHECK NONE
CMD ["duplus", "--help"]
