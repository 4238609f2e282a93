# The operator and the relay in one image: docker build -t stackbus:0.1.0 .
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /src
COPY pyproject.toml uv.lock README.md ./
COPY src src
RUN UV_PROJECT_ENVIRONMENT=/opt/stackbus uv sync --frozen --no-dev --no-editable --compile-bytecode

FROM python:3.13-slim
COPY --from=build /opt/stackbus /opt/stackbus
ENV PATH=/opt/stackbus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    XDG_STATE_HOME=/tmp
USER 10001:10001
ENTRYPOINT ["stackbus"]
CMD ["--help"]
