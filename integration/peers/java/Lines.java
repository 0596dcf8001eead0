import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.function.Function;

/** A program that prints one JSON line for each that it reads. */
final class Lines {
    static final ObjectMapper JSON = new ObjectMapper();

    private Lines() {}

    /** Answers until standard input is closed, or so many seconds have passed; then the program ends. */
    static void answer(long seconds, Function<JsonNode, Map<String, Object>> answer) throws IOException {
        endAfter(seconds);
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(JSON.writeValueAsString(answer.apply(JSON.readTree(line))));
        }
        System.exit(0); // threads of clients would keep the program
    }

    private static void endAfter(long seconds) {
        Thread clock = new Thread(() -> {
            try {
                Thread.sleep(seconds * 1000);
            } catch (InterruptedException interrupted) {
                return;
            }
            Runtime.getRuntime().halt(0);
        });
        clock.setDaemon(true);
        clock.start();
    }
}
