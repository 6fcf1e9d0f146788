"""What every figure is printed with: the processor, and the kernels of numpy's BLAS."""

import os


def machine() -> str:
    """One line: processor, BLAS, kernel, and the variables that hold the kernel back, if any."""
    from distnn.run.fingerprint import fingerprint
    from distnn.run.kernels import VARIABLES

    here = fingerprint()
    held = "".join(f"; {name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
    return f"{here['cpu']}; {here['blas']} {here['blas_version']} {here['blas_kernel']}{held}"
