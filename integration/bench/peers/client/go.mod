module kasaga.invalid/peers-client

go 1.21
