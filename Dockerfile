# For a CPU:      docker build -t so-vits-svc .
# For NVIDIA:     docker build -t so-vits-svc --build-arg TORCH=https://download.pytorch.org/whl/cu128 .
#                 (pytorch.org names the address for your driver)
# Run a script:   docker run --rm -v "$PWD:/work" so-vits-svc inference_main.py -n song.wav -s alto
#                 (with --gpus all for NVIDIA); pretrain/, logs/, raw/ and the other folders are those of the mounted one
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg libsndfile1 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements*.txt ./
RUN pip install --no-cache-dir torch torchaudio --index-url ${TORCH} \
    && pip install --no-cache-dir -r requirements.txt -r requirements-onnx.txt
COPY . .
ENV PYTHONUTF8=1
WORKDIR /work
ENTRYPOINT ["sh", "-c", "exec python \"/app/$0\" \"$@\""]
