"""Import msdet's components; print the number of MMEngine's classes, and the names of those that this changed."""

import mmengine.hooks
import mmengine.model
import mmengine.optim
import mmengine.runner

MODULES = (mmengine.hooks, mmengine.model, mmengine.optim, mmengine.runner)

if __name__ == "__main__":
    classes = [getattr(module, name) for module in MODULES for name in module.__all__]
    before = [(owner, dict(vars(owner))) for owner in classes if isinstance(owner, type)]
    import experiments.detection
    import experiments.training.components

    assert "RetinaNet" in experiments.detection.LEVEL_WEIGHTED
    print(len(before), *(owner.__name__ for owner, content in before if dict(vars(owner)) != content))
