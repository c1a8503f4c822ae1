# SPDX-License-Identifier: Apache-2.0
#
# The last line counts test cases: one has passed when every test in it has.

using Negcos, Test, Random

const ROOT = normpath(joinpath(@__DIR__, "..", "..", "..", ".."))
const PASSED, FAILED = Ref(0), Ref(0)

function case(body, name)
    try
        @testset "$name" begin # one that is not within another throws at its end when a test has failed
            body()
        end
        PASSED[] += 1
    catch exception
        exception isa Test.TestSetException || showerror(stdout, exception, catch_backtrace())
        FAILED[] += 1
    end
    flush(stdout)
end

# What is thrown, as the user reads it.
function message(f)
    try
        f()
    catch exception
        return sprint(showerror, exception)
    end
    return "nothing was thrown"
end

for name in ("layout", "bits", "arguments", "rows", "lifetime", "threads", "frequency", "rule", "documents")
    include("$name.jl")
end

println(PASSED[], " passed, ", FAILED[], " failed")
exit(FAILED[] == 0 ? 0 : 1)
