# docker build -t distnn . && docker run --rm distnn -n 4 python -m distnn.train --run-dir /tmp/run
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /src/
COPY distnn /src/distnn
RUN pip install --no-cache-dir "/src[mpich]" && rm -rf /src

RUN useradd --create-home distnn
USER distnn
WORKDIR /home/distnn

ENTRYPOINT ["mpirun"]
CMD ["-n", "2", "python", "-m", "distnn.train"]
