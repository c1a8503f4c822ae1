# SPDX-License-Identifier: Apache-2.0

# What owns a handle of the library, and a lock: one task at a time.
abstract type Owner end

Base.isopen(owner::Owner) = owner.handle != C_NULL
function Base.close(owner::Owner)
    lock(() -> destroy(owner), owner.lock)
    return nothing
end
Base.show(io::IO, owner::Owner) = print(io, typeof(owner), isopen(owner) ? "()" : "(closed)")

# Runs f(handle), alone.
function exclusively(f, owner::Owner)
    lock(owner.lock)
    try
        isopen(owner) || throw(ArgumentError("the $(nameof(typeof(owner))) is closed"))
        return GC.@preserve owner f(owner.handle)
    finally
        unlock(owner.lock)
    end
end

"""
    Negcos.Context(; threads = 0, threading = :default, isa = nothing, workspace_limit = 0)
    Negcos.Context(f; …)                # closes it after f(context)

Threads, kernels and a workspace. One call at a time: a call from another task waits until the running one is done. Give
tasks that should run at once a context each.

- `threads`: how many a call may use; 0: as many as the CPUs that the calling thread may use, capped by `NEGCOS_THREADS` in
  the environment or, without it, by the container's quota and `OMP_NUM_THREADS`; with `threading = :julia`
  `Threads.nthreads()`
- `threading`: `:default` (oneTBB where it is built in), `:serial`, `:tbb`, `:openmp`, or `:julia`: tasks on Julia's own
  threads. The results are the same bits with all of them.
- `isa`: an instruction set, one of [`Negcos.isas`](@ref); `nothing`: the best one
- `workspace_limit`: bytes that a call may use beyond inputs and outputs; 0: no limit

`close` frees it, and so does the garbage collector. `Negcos.isa_in_use` and `Negcos.threads` say what is in force. The
garbage collector of other Julia threads waits for a running call.

Throws `NegcosError` for what the library refuses, `ArgumentError` for unknown keywords and Symbols.
"""
mutable struct Context <: Owner
    handle::Ptr{Cvoid}
    lock::ReentrantLock
    positives::Vector{Int64} # rows converted for a call
    negatives::Vector{Int32}
    function Context(; arguments...)
        options = set_fields!(defaults(CContextOptions), arguments, (:threads, :threading, :workspace_limit), (:isa,))
        if options.threading == ENUMERATORS.threading.julia
            options.parallel_for = parallel_for_pointer[]
            options.threads == 0 && (options.threads = Threads.nthreads())
        end
        name = get(arguments, :isa, nothing)
        isa = name === nothing ? "" : String(name)
        handle = Ref(C_NULL)
        GC.@preserve isa begin
            name === nothing || (options.isa = Base.unsafe_convert(Cstring, isa))
            check(ccall(functions[:negcos_context_create], Int32, (Ref{CContextOptions}, Ref{Ptr{Cvoid}}), options, handle))
        end
        return finalizer(destroy, new(handle[], ReentrantLock(), Int64[], Int32[]))
    end
end

function Context(f::Function; arguments...)
    context = Context(; arguments...)
    try
        return f(context)
    finally
        close(context)
    end
end

function destroy(context::Context)
    ccall(functions[:negcos_context_destroy], Cvoid, (Ptr{Cvoid},), context.handle)
    context.handle = C_NULL
    return nothing
end

"""
    Negcos.isa_in_use(context) -> String

The instruction set that a context runs.
"""
isa_in_use(context::Context) =
    exclusively(handle -> unsafe_string(ccall(functions[:negcos_context_isa], Cstring, (Ptr{Cvoid},), handle)), context)

"""
    Negcos.threads(context) -> Int

The number of threads that a call may use.
"""
threads(context::Context) =
    exclusively(handle -> Int(ccall(functions[:negcos_context_threads], Int32, (Ptr{Cvoid},), handle)), context)

# `threading = :julia`: the library's tasks on Julia's threads. The calling task works too, and then waits without
# yielding: there are C frames on its stack, and they must not go on in another thread. It waits only for bodies that run;
# a helper that starts late finds none left, and looks at nothing but this object.
mutable struct Bodies
    body::Ptr{Cvoid}
    task::Ptr{Cvoid}
    count::Int64
    next::Threads.Atomic{Int64}
    done::Threads.Atomic{Int64}
end

# No InterruptException between taking an index and counting it as done.
run_bodies(bodies) = disable_sigint() do
    while (index = Threads.atomic_add!(bodies.next, 1)) < bodies.count
        ccall(bodies.body, Cvoid, (Ptr{Cvoid}, Int64), bodies.task, index)
        Threads.atomic_add!(bodies.done, 1)
    end
end

function start_helpers(bodies)
    try
        for _ in 2:min(bodies.count, Threads.nthreads())
            Threads.@spawn run_bodies(bodies)
        end
    catch # the calling task does what helpers that could not be had would do
    end
end

function parallel_for(::Ptr{Cvoid}, count::Int64, body::Ptr{Cvoid}, task::Ptr{Cvoid})::Int32
    try
        disable_sigint() do
            bodies = Bodies(body, task, count, Threads.Atomic{Int64}(0), Threads.Atomic{Int64}(0))
            start_helpers(bodies)
            run_bodies(bodies)
            while bodies.done[] < count
                GC.safepoint()
            end
        end
        return Int32(0)
    catch # nothing may be thrown through the library
        return Int32(1)
    end
end
const parallel_for_pointer = Ref(C_NULL)
