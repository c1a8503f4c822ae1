# SPDX-License-Identifier: Apache-2.0

# Without a second thread these cases would show nothing; test.sh asks for four. (Julia 1.5 takes no more than there are
# processors.)
const ALONE = Sys.CPU_THREADS == 1
ALONE && println("SKIP: more than one of Julia's threads: this machine has one processor")

case("threads: the same bits with every threading") do
    @test Threads.nthreads() > 1 || ALONE
    random = MersenneTwister(8)
    outputs = (:grad_queries, :grad_documents, :losses)
    for (d, B) in ((16, 3), (64, 700)), options in ((rounds = 20,), (sampling = :all,), (sampling = :uniform, objective = :sigmoid))
        Q, D = randn(random, Float32, d, B), randn(random, Float32, d, B)
        compute(; arguments...) =
            Negcos.Context(c -> Negcos.evaluate(c, Q, D; outputs = outputs, options...); arguments...)
        expected = compute(threading = :serial)
        for arguments in ((threading = :julia,), (threading = :julia, threads = 13), (threading = :default,), (threads = 1,))
            for _ in 1:5
                @test isequal(compute(; arguments...), expected)
            end
        end
    end
end

# Which threads ran the bodies of a call, called in the way of the library.
const BODY_THREADS = [Threads.Atomic{Int}(0) for _ in 1:64]
const RAN = [Threads.Atomic{Int}(0) for _ in 1:64]
function counting_body(::Ptr{Cvoid}, index::Int64)
    Threads.atomic_add!(RAN[index+1], 1)
    Threads.atomic_add!(BODY_THREADS[Threads.threadid()], 1)
    deadline = time_ns() + 2_000_000
    while time_ns() < deadline
    end
    return nothing
end

case("threads: Julia's run every body once") do
    body = @cfunction(counting_body, Cvoid, (Ptr{Cvoid}, Int64))
    for _ in 1:20
        @test ccall(Negcos.parallel_for_pointer[], Int32, (Ptr{Cvoid}, Int64, Ptr{Cvoid}, Ptr{Cvoid}), C_NULL, 40, body, C_NULL) == 0
        yield()
    end
    @test all(isequal(20), getindex.(RAN[1:40])) && all(iszero, getindex.(RAN[41:end]))
    @test count(!iszero, getindex.(BODY_THREADS)) > 1 || ALONE
    @test ccall(Negcos.parallel_for_pointer[], Int32, (Ptr{Cvoid}, Int64, Ptr{Cvoid}, Ptr{Cvoid}), C_NULL, 0, body, C_NULL) == 0
end

case("threads: a context each, and one for all") do
    random = MersenneTwister(9)
    problems = [(randn(random, Float32, 32, 200), randn(random, Float32, 32, 200)) for _ in 1:16]
    compute(context, problem) =
        Negcos.evaluate(context, problem...; outputs = (:grad_queries, :negatives), positives = 200:-1:1, rounds = 8, sampling = :uniform)
    expected = Negcos.Context(c -> map(problem -> compute(c, problem), problems); threading = :serial)
    for threading in (:serial, :default, :julia)
        tasks = [Threads.@spawn Negcos.Context(c -> compute(c, problem); threading = threading, threads = 3) for problem in problems]
        @test isequal(fetch.(tasks), expected)
        Negcos.Context(threading = threading, threads = 3) do shared # calls wait for each other
            tasks = [Threads.@spawn compute(shared, problem) for problem in problems]
            garbage = [Threads.@spawn sum(length, [zeros(1000) for _ in 1:200]) for _ in 1:8]
            @test isequal(fetch.(tasks), expected)
            foreach(wait, garbage)
        end
    end
end

case("threads: inputs stay alive during a call") do
    Negcos.Context(threading = :julia) do context
        compute() = Negcos.evaluate(
            context, randn(MersenneTwister(10), 40, 300), randn(MersenneTwister(11), 40, 300); rounds = 3, sampling = :given,
            negatives = rand(MersenneTwister(12), 1:300, 3, 300), weights = rand(MersenneTwister(13), 300), prefix_dims = [8, 40],
            prefix_weights = [1, 2], log_probability = log.(rand(MersenneTwister(14), 300)), outputs = (:grad_documents,))
        expected = compute()
        collector = Threads.@spawn for _ in 1:30
            GC.gc(false)
            yield()
        end
        for _ in 1:100
            @test isequal(compute(), expected)
        end
        wait(collector)
    end
end
