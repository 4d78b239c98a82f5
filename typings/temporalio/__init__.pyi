# What integration/bench/peers uses of temporalio 1.35: it has types, and is installed for the peers alone.
