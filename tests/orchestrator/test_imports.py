import subprocess
import sys

HEAVY = "torch", "transformers", "deepspeed", "ray", "mlflow"


def test_the_api_needs_no_heavy_package() -> None:
    code = f"import sys, orchestrator.api.app; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
