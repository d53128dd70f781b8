# msdet for machines with NVIDIA GPUs. On the host: a driver for CUDA 13 and the NVIDIA container toolkit.
#   docker build -t msdet .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" msdet run retinanet-r50-rlo -p tiny
# Wheels of torch bring CUDA along, so a plain Python is all that is beneath; versions are those of constraints.txt.
FROM python:3.11.7-slim-bookworm

# That index has torch and torchvision for one CUDA, as 2.13.0+cu130, which pip prefers to a plain 2.13.0.
# With an older driver: --build-arg CUDA=cu126
ARG CUDA=cu130

WORKDIR /msdet
COPY . .
# opencv-python needs the graphics libraries of a desktop: its headless twin, of the same version, takes its place.
RUN pip install --no-cache-dir -c constraints.txt \
        --extra-index-url "https://download.pytorch.org/whl/${CUDA}" '.[gpu,slurm,tensorboard]' \
    && pip install --no-cache-dir --no-deps --force-reinstall -c constraints.txt opencv-python-headless

WORKDIR /work
ENTRYPOINT ["msdet"]
CMD ["doctor"]
