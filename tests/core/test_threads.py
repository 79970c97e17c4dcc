"""PyTorch's threads beside Numba's."""


def test_compiled_loops_leave_pytorchs_threads_as_they_are(program):
    code = (
        "import torch; torch.set_num_threads(1); from rl_interp.core.threads import share_threads; "
        "print(share_threads(), torch.get_num_threads()); "
        "torch.set_num_threads(2); print(share_threads(most=1), torch.get_num_threads())"
    )
    assert program(code).stdout.split() == ["1", "1", "1", "2"]
