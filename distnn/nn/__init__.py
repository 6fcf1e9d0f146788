"""The mathematics: network, activations, losses, optimizers, schedules. numpy only."""
