"""Tests the tables of scripts/bench.py: they show the best rounds, and only what was measured."""

import bench


def figure(kind: str, name: str, size: int, threads: int, **result: float) -> dict:
    return {"key": [kind, name, size, threads], "round": 1, "result": result}


def test_tables():
    accuracy = {"seconds": 3.0, "program_seconds": 4.0, "peak_memory_mb": 300.0}
    size = bench.ACCURACY["batch-size"]
    figures = [
        figure("train", "lenet5, fused", 128, 1, seconds=0.9),
        figure("train", "lenet5, fused", 128, 1, seconds=0.8),
        figure("train", "lenet5, fused", 128, 2, seconds=0.5),
        figure("train", "lenet5, fused", 16, 2, seconds=0.7),
        figure("infer", "onnxruntime", 1, 1, images_per_second=20_000.0),
        figure("infer", "onnxruntime", 16, 2, images_per_second=160.0),
        figure("infer", "onnxruntime", 1000, 2, images_per_second=70_000.0),
        figure("infer", "onnxruntime", 1000, 2, images_per_second=79_000.0),
        figure("accuracy", "JAX", size, 2, test_error_percent=0.9, **accuracy),
        figure("accuracy", "JAX", size, 2, test_error_percent=1.0, **accuracy),
    ]
    report = {
        "date": "2026-01-02",
        "machine": {"cpu": "A CPU", "cores": 2, "vectors": "avx2"},
        "versions": {"torch": "2"},
        "threads": [1, 2],
        "sgemm_gflops": {"1": [100.0, bench.OPERATIONS * 60_000e-9], "2": [300.0]},
        "figures": figures,
    }
    lines = bench.tables(report).splitlines()
    assert "| lenet5, fused | 0.80 (+12) | 0.50 |" in lines
    sgemm = "| *all operations at the rate of sgemm* | 1.00 | "
    assert any(line.startswith(sgemm) for line in lines)
    assert "| lenet5, fused | 0.70 |  | 0.50 |  |" in lines
    assert "| onnxruntime | 50 | 160 | 79,000 |" in lines
    assert "| JAX | 4.0 | 3.0 | 0.95 | 300 |" in lines
    assert not any("TensorFlow" in line for line in lines)
