"""A shop that takes orders: three services, each with its own database, and the saga that ties them."""
