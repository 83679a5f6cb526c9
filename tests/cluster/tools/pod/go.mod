module example.invalid/tools/pod

go 1.26.0
