"""Questions about a policy that samples its actions by denoising: how few steps it needs, and when it decides."""
