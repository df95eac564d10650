"""Room: the render loop, the run folder it leaves behind, and what is said about the film."""
