# docker build -t distnn . && docker run --rm distnn -n 4 python -m distnn.train --run-dir /tmp/run
FROM python:3.12-slim

# ssh between pods, by a user that is not root, with the keys that Kubernetes' MPI operator mounts.
# Not needed where all ranks are in one container.
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client openssh-server \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && mkdir -p /run/sshd \
    && useradd --create-home --uid 1000 distnn \
    && printf '%s\n' 'Port 2222' 'StrictHostKeyChecking no' 'UserKnownHostsFile /dev/null' \
        'LogLevel ERROR' >/etc/ssh/ssh_config.d/pods.conf \
    && printf '%s\n' 'Port 2222' 'HostKey /home/distnn/.ssh/id_rsa' 'StrictModes no' \
        'PidFile none' >/home/distnn/.sshd_config

COPY pyproject.toml README.md LICENSE /src/
COPY distnn /src/distnn
RUN pip install --no-cache-dir "/src[mpich]" && rm -rf /src

USER distnn
WORKDIR /home/distnn

# The usual 64 MB of /dev/shm are enough; with more (--shm-size=1g) ranks share large data sets.
ENTRYPOINT ["mpirun"]
CMD ["-n", "2", "python", "-m", "distnn.train"]
