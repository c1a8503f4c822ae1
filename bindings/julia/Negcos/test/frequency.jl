# SPDX-License-Identifier: Apache-2.0

case("frequency: estimates, files") do
    mktempdir() do folder
        path = joinpath(folder, "frequency")
        for method in (:streaming, :count_min)
            frequency = Negcos.Frequency(method = method, buckets = 4096, seed = 5)
            for step in 1:100
                Negcos.update!(frequency, iseven(step) ? [7, -1] : [7])
            end
            share = method === :streaming ? (1, 1 / 2) : (100 / 150, 50 / 150)
            @test exp.(Negcos.log_probability(frequency, [7, -1])) ≈ collect(share)
            @test Negcos.log_probability(frequency, [123]) == [-log(method === :streaming ? 101 : 151)]

            Negcos.save(frequency, path)
            loaded = Negcos.Frequency(path)
            for f in (frequency, loaded)
                Negcos.update!(f, collect(1:50))
            end
            ids, log_q = collect(1:60), zeros(60)
            @test Negcos.log_probability!(log_q, loaded, ids) === log_q
            @test log_q == Negcos.log_probability(frequency, ids) && all(<=(0), log_q)
            @test Negcos.log_probability(frequency, Int64[]) == Float64[]
            close(frequency)
        end
    end
end

case("frequency: what is wrong is named") do
    frequency = Negcos.Frequency(buckets = 16)
    for (thrown, text, f) in (
        (ArgumentError, "no keyword argument decay: there are method, hashes", () -> Negcos.Frequency(decay = 1)),
        (ArgumentError, "method = :sum: there are :streaming and :count_min", () -> Negcos.Frequency(method = :sum)),
        (ArgumentError, "hashes = 1.5: expected an integer", () -> Negcos.Frequency(hashes = 1.5)),
        (ArgumentError, "ids: elements are Int32, expected Int64", () -> Negcos.update!(frequency, Int32[1])),
        (ArgumentError, "ids: a UnitRange", () -> Negcos.update!(frequency, 1:3)),
        (ArgumentError, "ids: strides (2,)", () -> Negcos.log_probability(frequency, view([1, 2, 3, 4], 1:2:4))),
        (DimensionMismatch, "log_q: size (1,), expected (2,)", () -> Negcos.log_probability!(zeros(1), frequency, [1, 2])),
        (ArgumentError, "log_q: elements are Float32", () -> Negcos.log_probability!(zeros(Float32, 2), frequency, [1, 2])),
        (NegcosError, "(value)", () -> Negcos.Frequency(learning_rate = 2)),
        (NegcosError, "(unsupported)", () -> Negcos.Frequency(method = :count_min, initial_gap = 3)),
        (NegcosError, "(overlap)", () -> (ids = [1, 2]; Negcos.log_probability!(reinterpret(Float64, ids), frequency, ids))),
        (NegcosError, "(io)", () -> Negcos.save(frequency, "/nowhere/frequency")),
        (NegcosError, "(io)", () -> Negcos.Frequency("/nowhere/frequency")),
    )
        @test_throws thrown f()
        @test occursin(text, message(f))
    end
end
