# Two images of this tree:
#
#   docker build --target operator -t modelparams/operator:0.1.0 .
#   docker build --target serving  -t modelparams/serving:0.1.0 .
#
# BASE is any image with Python 3.11 or newer and its venv module. Where packages come from an index of your own, say so
# with a pip.conf, which stays out of the images: --secret id=pip,src=$HOME/.config/pip/pip.conf
# TORCH is the lock of torch and what it brings: by default the build for CUDA, which runs on CPUs too and is 5 of the
# serving image's 6 GB. For nodes without a GPU lock torch anew from an index of CPU builds, and name that file.
# `make images` builds both with docker, podman or buildah, on Debian without any image registry.
ARG BASE=python:3.12-slim

# No shell is needed when it runs: every command is a file of /opt/venv/bin.
FROM ${BASE} AS base
RUN python3 -m venv --without-pip /opt/venv && \
    echo 'modelparams:x:65532:65532::/nonexistent:/usr/sbin/nologin' >>/etc/passwd && \
    echo 'modelparams:x:65532:' >>/etc/group
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# Our own code, in a venv of the same place that holds nothing else. first_process.pth: the kernel keeps SIGTERM from a
# container's first process until that has a handler, and a program sets its own only after seconds of imports.
FROM base AS code
COPY requirements-setup.lock /opt/locks/setup.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/tools && \
    /opt/tools/bin/python -m pip --quiet --no-cache-dir --disable-pip-version-check install \
        --require-hashes --only-binary :all: --no-deps -r /opt/locks/setup.lock
COPY pyproject.toml README.md LICENSE /src/
COPY params/src /src/params/src
COPY operator/src /src/operator/src
COPY serving/src /src/serving/src
RUN pip="/opt/tools/bin/python -m pip --quiet --no-cache-dir --disable-pip-version-check" && \
    $pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels /src && \
    $pip --python /opt/venv/bin/python install --no-index --no-deps --no-compile /wheels/*.whl && \
    echo 'import os, signal; os.getpid() == 1 and signal.signal(signal.SIGTERM, lambda *_: os._exit(143))' \
        >"$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first_process.pth" && \
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# Compiled here, as nothing can be written later. Some packages carry files that are no Python, such as templates.
FROM base AS operator-dependencies
COPY operator/requirements.lock /opt/locks/operator.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /tmp/pip && \
    /tmp/pip/bin/python -m pip --quiet --no-cache-dir --disable-pip-version-check --python /opt/venv/bin/python install \
        --require-hashes --only-binary :all: --no-deps --no-compile -r /opt/locks/operator.lock && \
    rm -r /tmp/pip && \
    { python -m compileall -qq -j 0 /opt/venv/lib || :; }

FROM operator-dependencies AS operator
COPY --from=code /opt/venv /opt/venv
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="ModelParams operator" \
      org.opencontainers.image.description="Rolls sealed, signed model parameters into running serving pods" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
USER 65532:65532
ENTRYPOINT ["modelparams-operator"]
CMD ["run"]

# What changes least and is largest comes first.
FROM base AS serving-dependencies
ARG TORCH=serving/torch.lock
COPY ${TORCH} /opt/locks/torch.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /tmp/pip && \
    /tmp/pip/bin/python -m pip --quiet --no-cache-dir --disable-pip-version-check --python /opt/venv/bin/python install \
        --require-hashes --only-binary :all: --no-deps --no-compile -r /opt/locks/torch.lock && \
    rm -r /tmp/pip && \
    { python -m compileall -qq -j 0 /opt/venv/lib || :; }
COPY serving/requirements.lock /opt/locks/serving.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /tmp/pip && \
    /tmp/pip/bin/python -m pip --quiet --no-cache-dir --disable-pip-version-check --python /opt/venv/bin/python install \
        --require-hashes --only-binary :all: --no-deps --no-compile -r /opt/locks/serving.lock && \
    rm -r /tmp/pip && \
    { python -m compileall -qq -j 0 /opt/venv/lib || :; }

# One image, two commands: modelparams-serve, the engine, and modelparams-agent beside it. It holds no parameters.
FROM serving-dependencies AS serving
COPY --from=code /opt/venv /opt/venv
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="ModelParams serving" \
      org.opencontainers.image.description="Engine and agent of a serving pod; parameters come sealed, at run time" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
USER 65532:65532
CMD ["modelparams-serve"]
